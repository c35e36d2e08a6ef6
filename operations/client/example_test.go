package client_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
)

// exampleHive starts a server that responds like a hive with one model.
func exampleHive() *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/jobs", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"job_id": "j1", "sse_url": "/v1/jobs/j1/stream"}`)
	})
	mux.HandleFunc("GET /v1/jobs/j1/stream", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "id: 1\nevent: event\ndata: {\"type\": \"note\", \"message\": \"reading the cache\"}\n\n"+
			"event: result\ndata: {\"operation\": \"model_list\", \"report\": {\"models\": [{\"id\": \"org/repo\"}]}}\n\ndata: [DONE]\n\n")
	})
	return httptest.NewServer(mux)
}

// List the models of a hive.
func ExampleClient_Run() {
	hive := exampleHive() // normally the URL of a queen or a hive daemon
	defer hive.Close()

	client := &client.Client{URL: hive.URL, Token: "the token of the hive"}
	report, err := client.Run(context.Background(), operations.ModelList{}, func(e operations.Event) {
		fmt.Println(e.Type, e.Message)
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if list, ok := report.(*operations.ModelListReport); ok {
		fmt.Println(len(list.Models), "model:", list.Models[0].ID)
	}
	// Output:
	// note reading the cache
	// 1 model: org/repo
}

// Start a job without watching it, and get its report later.
func ExampleClient_Start() {
	hive := exampleHive()
	defer hive.Close()
	ctx := context.Background()

	client := &client.Client{URL: hive.URL}
	job, err := client.Start(ctx, operations.ModelList{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(job.ID, job.Operation, job.State)

	report, err := client.Watch(ctx, job.ID, 0, nil) // by any client, at any later time
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(report.Outcome())
	// Output:
	// j1 model_list running
	// ok
}
