package web

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"capture/internal/busy"
	"capture/internal/pgserver"
)

func TestMain(m *testing.M) {
	if role := os.Getenv("WEB_TEST_ROLE"); role != "" {
		os.Exit(playRole(role, os.Args[1:]))
	}
	os.Exit(pgserver.Main(func() int {
		defer closeChromium()
		return m.Run()
	}))
}

// patience is the maximum time that a test waits for an event that must happen.
const patience = 60 * time.Second

// closeChromium ends the browser, if a test has started it.
var closeChromium = func() {}

// startChromium starts the browser that the tests share, and returns its context.
var startChromium = sync.OnceValues(func() (context.Context, error) {
	var program string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		return nil, errors.New("these tests drive a real Chromium, and there is none: install it (Debian: apt-get install chromium)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.DisableGPU,
		// The tests do not need these features. With them, Chromium starts a process for a page that may never be opened,
		// and loads two pages for the suggestions of each window's address bar.
		chromedp.Flag("disable-features", "Translate,SpareRendererForSitePerProcess,WebUIOmniboxPopup,WebUIOmniboxAimPopup"),
		chromedp.NoSandbox) // Chromium's sandbox does not work for root, nor in many containers
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	browser, _ := chromedp.NewContext(allocator)
	closeChromium = func() {
		_ = chromedp.Cancel(browser) // waits for the browser to end; its error no longer matters
		cancel()
	}
	return browser, chromedp.Do(browser)
})

// tab is a tab of the shared browser. Tabs share no storage, because each test's server has an origin of its own.
type tab struct {
	t   testing.TB
	ctx context.Context

	mu       sync.Mutex
	problems []string // exceptions, and errors and warnings of the console
	requests []string // addresses of the requests
}

type viewport struct {
	width, height int64
	scale         float64
	dark          bool // whether the user prefers a dark color scheme
}

var (
	desktop = viewport{width: 1280, height: 1000, scale: 1}
	phone   = viewport{width: 390, height: 844, scale: 2}
)

func (v viewport) darkMode() viewport { v.dark = true; return v }

// openTab opens an address in a new tab, which is closed at the end of the test. A separate browser context for each tab would
// cost Chromium half a second of processor time.
func openTab(t testing.TB, v viewport, address string) *tab {
	t.Helper()
	browser, err := startChromium()
	if err != nil {
		t.Fatal(err)
	}
	p := &tab{t: t}
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithListener(p.record))
	p.ctx = ctx
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // opens the tab, which lives as long as this context
		t.Fatal(err)
	}
	p.setScheme(v.dark)
	call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: v.width, Height: v.height, DeviceScaleFactor: v.scale, Mobile: v.scale > 1})
	p.do(chromedp.Navigate(address))
	return p
}

// setScheme sets the color scheme that the user prefers.
func (p *tab) setScheme(dark bool) {
	p.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme},
			{Name: "prefers-reduced-motion", Value: "reduce"}, // without a GPU, the processor draws 60 pictures a second for an animation
		}})
}

// record stores the events that tab.check needs.
func (p *tab) record(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		p.problems = append(p.problems, (&chromedp.ExceptionError{ExceptionDetails: e.ExceptionDetails}).Error())
	case *runtime.EventConsoleAPICalled:
		switch e.Type {
		case runtime.ConsoleAPICalledTypeError, runtime.ConsoleAPICalledTypeWarning, runtime.ConsoleAPICalledTypeAssert:
			text := string(e.Type)
			for _, arg := range e.Args {
				text += " " + string(arg.Value) + arg.Description
			}
			p.problems = append(p.problems, text)
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			p.problems = append(p.problems, e.Entry.Text+" "+e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		p.requests = append(p.requests, e.Request.URL)
	}
}

// check fails the test if a recorded problem contains none of the allowed texts, or if the page sent a request to another host.
func (p *tab) check(host string, allowed ...string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, problem := range p.problems {
		if !slices.ContainsFunc(allowed, func(a string) bool { return strings.Contains(problem, a) }) {
			p.t.Errorf("console: %s", problem)
		}
	}
	for _, address := range p.requests {
		u, err := url.Parse(address)
		if err != nil || u.Host != host && u.Scheme != "blob" && u.Scheme != "about" && u.Scheme != "data" {
			p.t.Errorf("a request to %s", address)
		}
	}
}

// do runs an action in the page.
func (p *tab) do(action chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	run(p, action)
}

func run[T any](p *tab, action chromedp.Action[T]) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, busy.Limit(patience))
	defer cancel()
	result, err := chromedp.Run(ctx, action)
	if err != nil {
		p.t.Fatal(err)
	}
	return result
}

// call sends a command of the DevTools protocol.
func call[P, R any](p *tab, command cdp.Command[P, R], params P) R {
	p.t.Helper()
	return run(p, func(ctx context.Context, t *chromedp.Target) (R, error) { return cdp.Call(ctx, t, command, params) })
}

// reload loads the page again, and returns when the new document has loaded. A script's location.reload() is not suitable: an
// expression that is evaluated before the new document takes over fails with "Inspected target navigated or closed".
func (p *tab) reload() {
	p.t.Helper()
	p.do(chromedp.Reload())
}

// eval returns the value of an expression in the page. If the value is a promise, eval waits for its result.
func (p *tab) eval(expression string) any {
	p.t.Helper()
	isUser := true // allows actions that the browser otherwise allows only after a click
	return run(p, chromedp.Evaluate[any](expression, chromedp.EvalAwaitPromise,
		func(params *runtime.EvaluateParams) { params.UserGesture = &isUser }))
}

// waitFor waits until an expression is true. The page itself repeats the check, because each evaluation from the test costs
// time in all of Chromium's processes. chromedp.Poll also checks within the page, but it evaluates a string as code there, which
// the page's content security policy forbids.
func (p *tab) waitFor(expression string) {
	p.t.Helper()
	wait := fmt.Sprintf(`new Promise((resolve) => {
		const holds = () => { try { return !!(%s) } catch { return false } };
		if (holds()) return resolve(true);
		const began = Date.now(), timer = setInterval(() => {
			const done = holds();
			if (!done && Date.now() - began < 5000) return;
			clearInterval(timer);
			resolve(done);
		}, 50);
	})`, expression)
	limit := busy.Limit(patience)
	for began := time.Now(); p.eval(wait) != true; {
		if time.Since(began) > limit {
			p.screenshot("failed")
			page := p.eval("document.body.innerText.slice(0, 3000)")
			p.mu.Lock()
			defer p.mu.Unlock()
			p.t.Fatalf("never true: %s\nconsole: %q\npage: %v", expression, p.problems, page)
		}
	}
}

func (p *tab) text(selector string) string {
	p.t.Helper()
	s, _ := p.eval(fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector)).(string)
	return s
}

// click clicks in the middle of the element that the selector matches. It tries again until the element receives the click:
// on a busy machine, the page may move the element after clickOnce has measured its place.
func (p *tab) click(selector string) {
	p.t.Helper()
	for range 20 {
		p.clickOnce(selector)
		if p.eval("window.clicked === false") != true {
			return
		}
	}
	p.t.Fatalf("%s does not receive clicks", selector)
}

// clickOnce clicks in the middle of the element. Afterwards, window.clicked is false if the element did not receive the click.
// If the click opened another page, window.clicked is not set.
func (p *tab) clickOnce(selector string) {
	p.t.Helper()
	// The click goes to a place on the screen, so clickOnce first waits until the element no longer moves and nothing covers it.
	p.waitFor(fmt.Sprintf(`(() => {
		const e = document.querySelector(%q);
		if (!e) return false;
		e.scrollIntoView({block: "center", behavior: "instant"});
		const r = e.getBoundingClientRect(), at = [r.x + r.width / 2, r.y + r.height / 2], before = String(window.clickAt);
		window.clickAt = at;
		return String(at) === before && e.contains(document.elementFromPoint(...at));
	})()`, selector))
	at := p.eval("window.clickAt").([]any)
	p.eval(fmt.Sprintf(`window.clicked = false; document.addEventListener("click", (event) => {
		if (event.target.closest(%q)) window.clicked = true;
	}, {once: true, capture: true})`, selector))
	x, y := at[0].(float64), at[1].(float64)
	p.do(chromedp.MouseEvent(chromedp.MouseMoved, x, y))
	p.do(chromedp.MouseClickXY(x, y))
}

// write types a text into the element with the focus.
func (p *tab) write(text string) {
	p.t.Helper()
	call(p, input.InsertText, input.InsertTextParams{Text: text})
}

// press presses a key, such as kb.Enter.
func (p *tab) press(key string) {
	p.t.Helper()
	p.do(chromedp.KeyEvent(key))
}

// screenshot writes a picture of the page to the test's artifacts. Without go test's flag -artifacts, which keeps the
// artifacts, screenshot does nothing, because a picture takes Chromium half a second of processor time.
func (p *tab) screenshot(name string) {
	p.t.Helper()
	if f := flag.Lookup("test.artifacts"); f == nil || f.Value.String() != "true" {
		return
	}
	png := run(p, chromedp.CaptureScreenshot())
	if err := os.WriteFile(filepath.Join(p.t.ArtifactDir(), name+".png"), png, 0o644); err != nil {
		p.t.Error(err)
	}
}
