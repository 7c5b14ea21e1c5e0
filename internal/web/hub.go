package web

import "sync"

// subscriberQueue is the number of events that a slow client may lag behind.
const subscriberQueue = 16

// hub sends each event to all open streams.
type hub struct {
	mu          sync.Mutex
	subscribers map[chan []byte]bool
}

func newHub() *hub {
	return &hub{subscribers: map[chan []byte]bool{}}
}

// subscribe returns a channel of events, or nil if maxStreams streams are open already. If the reader of the channel lags too
// far behind, the channel is closed.
func (h *hub) subscribe() chan []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.subscribers) >= maxStreams {
		return nil
	}
	c := make(chan []byte, subscriberQueue)
	h.subscribers[c] = true
	return c
}

func (h *hub) unsubscribe(c chan []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subscribers, c)
}

func (h *hub) isEmpty() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.subscribers) == 0
}

func (h *hub) broadcast(event []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.subscribers {
		select {
		case c <- event:
		default:
			delete(h.subscribers, c)
			close(c)
		}
	}
}
