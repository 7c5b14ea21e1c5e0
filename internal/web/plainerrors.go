package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"strings"

	"capture/internal/foreign"
)

// plainErrorListener turns net/http's own errors into JSON, the form of all other errors. If net/http cannot parse a
// request, it answers in plain text before any handler runs.
type plainErrorListener struct{ net.Listener }

func (l plainErrorListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		return &plainErrorConn{TCPConn: tcp}, err
	}
	return c, err
}

// plainErrorConn is a connection that converts the errors that net/http writes. It has all methods of a TCP connection, because
// net/http sends files by ReadFrom.
//
// net/http writes such an error with a single call of Write, instead of an answer. Therefore, only the first Write on the
// connection, or the first Write after a complete answer, can be an error. Every other Write continues an answer and must
// not be converted: it can begin anywhere in a vote's text, and a user can write a text that looks like an error. Reads do
// not show where an answer ends, because the next request can arrive together with the previous request, or during the
// answer.
type plainErrorConn struct {
	*net.TCPConn
	answering bool // whether something has been written since the last complete answer
}

// endAnswer records that the answer is complete. It needs no lock, because net/http does not call Write at the same time.
func (c *plainErrorConn) endAnswer() { c.answering = false }

func (c *plainErrorConn) Write(p []byte) (int, error) {
	var answer []byte
	if !c.answering {
		answer = convertPlainError(p)
	}
	c.answering = true
	if answer == nil {
		return c.TCPConn.Write(p)
	}
	if _, err := c.TCPConn.Write(answer); err != nil {
		return 0, err
	}
	return len(p), nil
}

// errorHeaders are the headers that net/http gives to an error of its own (errorHeaders in net/http/server.go). No handler of this
// package writes them in this order.
var errorHeaders = []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")

// convertPlainError turns an error that net/http has written into an answer with JSON. It returns nil if p is not such an
// error.
func convertPlainError(p []byte) []byte {
	const maxLength = 1 << 10
	if len(p) > maxLength || !bytes.HasPrefix(p, []byte("HTTP/1.1 ")) {
		return nil
	}
	statusLine, text, found := bytes.Cut(p, errorHeaders)
	if !found || bytes.IndexByte(statusLine, '\n') >= 0 {
		return nil
	}
	status, _, _ := strings.Cut(string(statusLine), ": ") // the status without the text of the error, which goes into the body
	body, err := json.Marshal(map[string]string{"error": "not a request that capture can read: " + string(text)})
	if err != nil {
		return nil
	}
	body = foreign.JSON(body)
	return fmt.Appendf(nil, "%s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n%s\n",
		status, len(body)+1, body)
}
