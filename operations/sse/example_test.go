package sse_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/rbee-keeper/rbee/operations/sse"
)

// Write an event stream and read it.
func Example() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		out := sse.NewWriter(w, 10*time.Second)
		defer out.Close()
		for i, bee := range []string{"worker", "queen"} {
			if err := out.Send(sse.Event{ID: int64(i) + 1, Data: []byte(bee)}); err != nil {
				return // the client has disconnected
			}
		}
	}))
	defer server.Close()

	resp, err := http.Get(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	for in := sse.NewReader(resp.Body, 0); ; {
		event, err := in.Next()
		if err != nil {
			break // io.EOF at the end of the stream
		}
		fmt.Printf("%d %s\n", event.ID, event.Data)
	}
	// Output:
	// 1 worker
	// 2 queen
}
