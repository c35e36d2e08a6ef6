package echo_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/rbee-keeper/rbee/rbee/internal/echo"
)

func ExampleServe() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() { done <- echo.Serve(ctx, echo.Options{}, func(addr string) { ready <- addr }) }()

	resp, err := http.Post("http://"+<-ready+"/v1/completions", "application/json",
		strings.NewReader(`{"model":"echo","prompt":"hello again","stream":true}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	stream, _ := io.ReadAll(resp.Body)
	fmt.Println(strings.Count(string(stream), "data: "), "events")

	cancel()
	fmt.Println(<-done)
	// Output:
	// 4 events
	// <nil>
}
