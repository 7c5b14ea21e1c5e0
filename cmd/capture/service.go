package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"capture/capture"
	"capture/internal/cgroup"
	"capture/internal/logfile"
	"capture/internal/postgres"
	"capture/internal/recovery"
	"capture/internal/web"
	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
)

// service is a daemon with all that it runs on: file and lock, logs, metrics, HTTP.
type service struct {
	daemon   *capture.Daemon
	web      *web.Server
	listener net.Listener
	debug    net.Listener // of the profiles; nil for none
	file     *store.File
	logs     *logfile.Logs
	log      hclog.Logger
	memory   int64 // that the process is to use; 0 for what there is
}

type serviceConfig struct {
	database *pgx.ConnConfig
	refresh  func() (*pgx.ConnConfig, error) // reads it anew; nil for never
	table    tableName
	path     string // of feedback.json
	follow   followConfig
	memory   int64 // 0 for what there is
	watch    watchConfig
	keep     keepConfig
	page     pageConfig
	listen   string
	debug    string // where profiles are answered, "" for nowhere
	token    string // path of the token file, "" for none
	logs     logConfig
	stderr   io.Writer // where log lines go, too

	orAnyPort bool // where listen is taken
}

// openService takes the lock, opens the logs and takes the port; nothing runs yet.
func openService(cfg serviceConfig) (_ *service, err error) {
	v, _ := build()
	s := &service{memory: cfg.memory}
	if cfg.debug == "" {
		runtime.MemProfileRate = 0 // Go samples allocations as soon as a program could be asked for them
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	// The lock comes first: a second daemon must not touch the first one's logs.
	s.file, err = store.Open(cfg.path, store.Owner{PID: os.Getpid(), Host: hostname(), Version: v, Started: time.Now()})
	if err != nil {
		return nil, err
	}
	// The ports come last: whether they are free says nothing about the configuration, which is judged first.
	if s.logs, err = cfg.logs.open(cfg.stderr); err != nil {
		return nil, err
	}
	if s.listener, err = listen("--listen (CAPTURE_LISTEN)", cfg.listen, cfg.orAnyPort); err != nil {
		return nil, err
	}
	s.log = s.logs.Logger()
	if cfg.debug != "" {
		if s.debug, err = listen("--debug-listen (CAPTURE_DEBUG_LISTEN)", cfg.debug, false); err != nil {
			return nil, err
		}
		s.log.Info("profiles are answered", "url", "http://"+s.debug.Addr().String()+"/debug/pprof/")
	}
	if err := s.file.SetListen(s.listener.Addr().String()); err != nil {
		s.log.Warn("the lock file does not say where this daemon listens, so other commands find it by --listen only", "error", err)
	}

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.daemon = capture.New(capture.Config{
		Database:       cfg.database,
		Refresh:        cfg.refresh,
		Table:          cfg.table.Name,
		Source:         string(cfg.follow.Source),
		FlushDelay:     cfg.follow.FlushDelay.std(),
		FlushInterval:  cfg.follow.FlushInterval.std(),
		MaxWAL:         int64(cfg.follow.MaxWAL),
		CopyRate:       int64(cfg.follow.CopyRate),
		CopyJobs:       int(cfg.follow.CopyJobs),
		Memory:         cfg.memory,
		Folders:        folders(cfg.path, cfg.logs.logFiles),
		VolumeWarn:     int(cfg.watch.VolumeWarn),
		AlertURL:       string(cfg.watch.AlertURL),
		AlertAfter:     cfg.watch.AlertAfter.std(),
		Verify:         compareWithTable(cfg.database, cfg.table.Name),
		Recall:         func(ctx context.Context) (*snapshot.View, error) { return recovery.Recall(ctx, cfg.path) },
		VerifyInterval: cfg.keep.VerifyInterval.std(),
		Keep:           store.Retention{Count: int(cfg.keep.Keep), Days: int(cfg.keep.KeepDays)},
		PollInterval:   cfg.follow.PollInterval.std(),
		Version:        v,
		Logger:         s.log,
		Registry:       registry,
		LogError:       s.logs.Err,
	}, s.file)
	s.web = web.New(web.Config{
		Daemon:     s.daemon,
		Path:       cfg.path,
		TokenFile:  cfg.token,
		Gatherer:   registry,
		Registerer: registry,
		Logger:     s.log.Named("web"),
		Title:      cfg.page.Title,
		TimeColumn: cfg.page.TimeColumn,
		TagsColumn: cfg.page.TagsColumn,
		Version:    v,
	})
	return s, nil
}

// compareWithTable is the daemon's own regular check: what `capture verify` does with the file, done with the rows in
// memory.
func compareWithTable(database *pgx.ConnConfig, table postgres.Name) capture.Verify {
	return func(ctx context.Context, state func(context.Context) (*snapshot.View, error)) (int64, []string, error) {
		d, err := recovery.Compare(ctx, recovery.Comparison{
			Database: database, Table: table, Live: true,
			State: func(ctx context.Context, _ *postgres.Table) (recovery.Rows, error) {
				view, err := state(ctx)
				if err != nil {
					return nil, err
				}
				return func(yield func(rowjson.Key, []byte) error) error {
					for row, err := range view.From(nil) {
						if err == nil {
							err = yield(row.Key, row.Line)
						}
						if err != nil {
							return err
						}
					}
					return nil
				}, nil
			},
		})
		var keys []string
		for _, some := range []recovery.Keys{d.Missing, d.Extra, d.Different} {
			for _, k := range some.First {
				keys = append(keys, k.Key)
			}
		}
		return d.Missing.Rows + d.Extra.Rows + d.Different.Rows, keys, err
	}
}

const (
	allowedGarbage = 32 << 20
	returnEvery    = time.Second
)

// leanHeap keeps the process to memory, and within it to what the rows take and little more. GOGC, where it is set, is left
// alone.
func leanHeap(ctx context.Context, memory int64) error {
	// The collector does not know of control groups: near their limit it is to work harder, before the kernel kills.
	limit := cgroup.MemoryLimit()
	if memory > 0 {
		limit = min(limit, memory)
	}
	if (memory > 0 || os.Getenv("GOMEMLIMIT") == "") && limit < math.MaxInt64 {
		debug.SetMemoryLimit(min(debug.SetMemoryLimit(-1), limit/10*9))
	}
	if os.Getenv("GOGC") != "" {
		return nil
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	percent, returned := 0, time.Time{}
	for {
		metrics.Read(sample)
		live, free := sample[0].Value.Uint64(), sample[1].Value.Uint64()
		if p := garbagePercent(live); p != percent {
			percent = p
			debug.SetGCPercent(percent)
		}
		// Go by itself keeps a tenth more than it needs for good, and much more than that for a while after a copy.
		if free > max(live/32, 2*allowedGarbage) && time.Since(returned) > returnEvery {
			debug.FreeOSMemory()
			returned = time.Now()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// garbagePercent is how much garbage there may be beside so much that lives, before the collector runs. The rows lie in
// blocks without pointers, which it passes over: a collection costs little however many there are, and some garbage of
// theirs is much.
func garbagePercent(live uint64) int {
	return int(min(max(allowedGarbage*100/max(live, 1), 3), 100))
}

// run follows the table and serves HTTP until ctx ends. What fails is in the log when it returns.
func (s *service) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return guarded(func() error { return leanHeap(ctx, s.memory) }) })
	group.Go(func() error { return guarded(func() error { return s.daemon.Run(ctx) }) })
	group.Go(func() error { return guarded(func() error { return s.web.Run(ctx, s.listener) }) })
	if s.debug != nil {
		group.Go(func() error { return guarded(func() error { return web.RunDebug(ctx, s.debug) }) })
	}
	s.onSignals(ctx, group)
	if err := group.Wait(); err != nil {
		s.log.Error("capture stops", "error", err)
		return reportedError{err}
	}
	return nil
}

// address is where HTTP is answered, as a client on this machine reaches it.
func (s *service) address() string { return reachable(s.listener.Addr().String(), "") }

// close gives back what openService took; run must have returned.
func (s *service) close() {
	if s.listener != nil {
		s.listener.Close()
	}
	if s.debug != nil {
		s.debug.Close()
	}
	if s.file != nil {
		if err := s.file.Close(); err != nil && s.log != nil {
			s.log.Error("release the lock failed", "error", err)
		}
	}
	if s.logs != nil {
		if err := s.logs.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "capture: close the logs:", err)
		}
	}
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}
