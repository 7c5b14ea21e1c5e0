package web

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"capture/internal/pgserver"
)

func TestMain(m *testing.M) {
	os.Exit(pgserver.Main(func() int {
		defer chromium.close()
		return m.Run()
	}))
}

// patience is how long a test waits for what must come.
const patience = 60 * time.Second

// chromium is the browser that the tests share. It speaks the DevTools protocol over a pair of pipes: JSON messages,
// each ended by a zero byte.
var chromium browser

type browser struct {
	once sync.Once
	err  error
	dir  string
	cmd  *exec.Cmd
	to   *os.File

	mu      sync.Mutex
	last    int
	replies map[int]chan message
	pages   map[string]*tab // by session
	ended   bool
}

// message is a command's answer or an event.
type message struct {
	ID      int             `json:"id"`
	Session string          `json:"sessionId"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
	Result  json.RawMessage `json:"result"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error"`
}

func (b *browser) start() error {
	b.once.Do(func() { b.err = b.launch() })
	return b.err
}

func (b *browser) launch() error {
	var program string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		return errors.New("these tests drive a real Chromium, and there is none: install it (Debian: apt-get install chromium)")
	}
	var err error
	if b.dir, err = os.MkdirTemp("", "capture-chromium-"); err != nil {
		return err
	}
	in, to, err := os.Pipe()
	if err != nil {
		return err
	}
	from, out, err := os.Pipe()
	if err != nil {
		return err
	}
	b.cmd = exec.Command(program, "--headless", "--remote-debugging-pipe", "--user-data-dir="+b.dir,
		"--no-sandbox", // root may not use it, and containers often can't
		"--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions", "about:blank")
	b.cmd.ExtraFiles = []*os.File{in, out} // 3 and 4, as the flag has it
	b.cmd.Env = append(os.Environ(), "HOME="+b.dir)
	if err := b.cmd.Start(); err != nil {
		return err
	}
	in.Close()
	out.Close()
	b.to, b.replies, b.pages = to, map[int]chan message{}, map[string]*tab{}
	go b.read(from)
	return nil
}

// read hands out what the browser says, until it ends.
func (b *browser) read(from *os.File) {
	defer from.Close()
	r := bufio.NewReader(from)
	for {
		text, err := r.ReadBytes(0)
		if err != nil {
			break
		}
		var m message
		if json.Unmarshal(text[:len(text)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		reply, p := b.replies[m.ID], b.pages[m.Session]
		delete(b.replies, m.ID)
		b.mu.Unlock()
		switch {
		case m.ID != 0 && reply != nil:
			reply <- m
		case p != nil:
			p.note(m)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	for _, reply := range b.replies {
		close(reply)
	}
	b.replies = map[int]chan message{}
}

// call runs one command and decodes its result into into, where that is not nil.
func (b *browser) call(session, method string, params any, into any) error {
	b.mu.Lock()
	if b.ended {
		b.mu.Unlock()
		return fmt.Errorf("%s: the browser has ended", method)
	}
	b.last++
	id, reply := b.last, make(chan message, 1)
	b.replies[id] = reply
	text, err := json.Marshal(map[string]any{"id": id, "sessionId": session, "method": method, "params": params})
	if session == "" {
		text, err = json.Marshal(map[string]any{"id": id, "method": method, "params": params})
	}
	if err == nil {
		_, err = b.to.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case m, ok := <-reply:
		switch {
		case !ok:
			return fmt.Errorf("%s: the browser has ended", method)
		case m.Error != nil:
			return fmt.Errorf("%s: %s", method, m.Error.Message)
		case into != nil:
			return json.Unmarshal(m.Result, into)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: no answer", method)
	}
}

func (b *browser) close() {
	if b.cmd == nil || b.cmd.Process == nil {
		return
	}
	_ = b.call("", "Browser.close", nil, nil) // it may end before it answers
	ended := make(chan error, 1)
	go func() { ended <- b.cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		b.cmd.Process.Kill()
		<-ended
	}
	b.to.Close()
	os.RemoveAll(b.dir)
}

// tab is a page of the browser, with cookies and storage of its own.
type tab struct {
	t       testing.TB
	session string

	mu       sync.Mutex
	problems []string // what the console and the policies complained of
	requests []string // addresses
}

type look struct {
	width, height int
	scale         float64
	dark          bool
}

var (
	desktop = look{width: 1280, height: 1000, scale: 1}
	phone   = look{width: 390, height: 844, scale: 2}
)

func (l look) night() look { l.dark = true; return l }

// openTab opens an address in a fresh context, which ends with the test.
func openTab(t testing.TB, l look, address string) *tab {
	t.Helper()
	if err := chromium.start(); err != nil {
		t.Fatal(err)
	}
	var context struct{ BrowserContextId string }
	var target struct{ TargetId string }
	var session struct{ SessionId string }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(chromium.call("", "Target.createBrowserContext", nil, &context))
	must(chromium.call("", "Target.createTarget", map[string]any{"url": "about:blank", "browserContextId": context.BrowserContextId}, &target))
	must(chromium.call("", "Target.attachToTarget", map[string]any{"targetId": target.TargetId, "flatten": true}, &session))
	p := &tab{t: t, session: session.SessionId}
	chromium.mu.Lock()
	chromium.pages[p.session] = p
	chromium.mu.Unlock()
	t.Cleanup(func() {
		chromium.mu.Lock()
		delete(chromium.pages, p.session)
		chromium.mu.Unlock()
		must(chromium.call("", "Target.disposeBrowserContext", map[string]any{"browserContextId": context.BrowserContextId}, nil))
	})
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		p.call(domain+".enable", nil, nil)
	}
	scheme := "light"
	if l.dark {
		scheme = "dark"
	}
	p.call("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	p.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": l.width, "height": l.height, "deviceScaleFactor": l.scale, "mobile": l.scale > 1}, nil)
	p.call("Page.navigate", map[string]any{"url": address}, nil)
	return p
}

// note keeps what a test asks for at its end.
func (p *tab) note(m message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch m.Method {
	case "Runtime.exceptionThrown":
		p.problems = append(p.problems, string(m.Params))
	case "Runtime.consoleAPICalled":
		var e struct{ Type string }
		if json.Unmarshal(m.Params, &e) == nil && (e.Type == "error" || e.Type == "warning" || e.Type == "assert") {
			p.problems = append(p.problems, string(m.Params))
		}
	case "Log.entryAdded":
		var e struct {
			Entry struct{ Level, Text, URL string }
		}
		if json.Unmarshal(m.Params, &e) == nil && (e.Entry.Level == "error" || e.Entry.Level == "warning") {
			p.problems = append(p.problems, e.Entry.Text+" "+e.Entry.URL)
		}
	case "Network.requestWillBeSent":
		var e struct{ Request struct{ URL string } }
		if json.Unmarshal(m.Params, &e) == nil {
			p.requests = append(p.requests, e.Request.URL)
		}
	}
}

// check fails the test for anything on the console but what is allowed, and for a request to another host.
func (p *tab) check(host string, allowed ...string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
problems:
	for _, problem := range p.problems {
		for _, a := range allowed {
			if strings.Contains(problem, a) {
				continue problems
			}
		}
		p.t.Errorf("console: %s", problem)
	}
	for _, address := range p.requests {
		u, err := url.Parse(address)
		if err != nil || u.Host != host && u.Scheme != "blob" && u.Scheme != "about" && u.Scheme != "data" {
			p.t.Errorf("a request to %s", address)
		}
	}
}

func (p *tab) call(method string, params, into any) {
	p.t.Helper()
	if params == nil {
		params = map[string]any{}
	}
	if err := chromium.call(p.session, method, params, into); err != nil {
		p.t.Fatal(err)
	}
}

// eval is the value of an expression in the page; a promise is waited for.
func (p *tab) eval(expression string) any {
	p.t.Helper()
	var a struct {
		Result           struct{ Value any }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	p.call("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true}, &a)
	if a.ExceptionDetails != nil {
		p.t.Fatalf("%s: %s %s", expression, a.ExceptionDetails.Text, a.ExceptionDetails.Exception.Description)
	}
	return a.Result.Value
}

// wait returns once an expression is true.
func (p *tab) wait(expression string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); p.eval("(() => { try { return !!("+expression+") } catch { return false } })()") != true; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.shoot("failed")
			p.mu.Lock()
			defer p.mu.Unlock()
			p.t.Fatalf("never true: %s\nconsole: %q\npage: %v", expression, p.problems, p.eval("document.body.innerText.slice(0, 3000)"))
		}
	}
}

func (p *tab) text(selector string) string {
	p.t.Helper()
	s, _ := p.eval(fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector)).(string)
	return s
}

// click presses the mouse in the middle of what a selector names.
func (p *tab) click(selector string) {
	p.t.Helper()
	p.wait(fmt.Sprintf("document.querySelector(%q)", selector))
	at, ok := p.eval(fmt.Sprintf(`(() => { const e = document.querySelector(%q); e.scrollIntoView({block: "center", behavior: "instant"});
		const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()`, selector)).([]any)
	if !ok {
		p.t.Fatalf("%s has no place", selector)
	}
	for _, kind := range []string{"mouseMoved", "mousePressed", "mouseReleased"} {
		p.call("Input.dispatchMouseEvent", map[string]any{"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1}, nil)
	}
}

// write types a text into what has the focus.
func (p *tab) write(text string) {
	p.t.Helper()
	p.call("Input.insertText", map[string]any{"text": text}, nil)
}

var keyCodes = map[string]int{"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36}

func (p *tab) press(key string) {
	p.t.Helper()
	params := map[string]any{"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": keyCodes[key]}
	if key == "Enter" {
		params["text"] = "\r"
	}
	p.call("Input.dispatchKeyEvent", params, nil)
	p.call("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": keyCodes[key]}, nil)
}

// shoot writes a picture of the page beside the test's other artifacts (go test -artifacts keeps them).
func (p *tab) shoot(name string) {
	p.t.Helper()
	var a struct{ Data string }
	p.call("Page.captureScreenshot", map[string]any{"format": "png"}, &a)
	png, err := base64.StdEncoding.DecodeString(a.Data)
	if err == nil {
		err = os.WriteFile(filepath.Join(p.t.ArtifactDir(), name+".png"), png, 0o644)
	}
	if err != nil {
		p.t.Error(err)
	}
}
