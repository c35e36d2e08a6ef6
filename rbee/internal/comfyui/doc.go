// Package comfyui is a client for ComfyUI, which runs graphs of nodes that generate images.
//
// A [Workflow] is a graph in the API format, which ComfyUI exports as "Save (API
// format)". [Client.Run] queues a workflow, waits until it has finished, and returns its
// output files. [Client.Fetch] downloads a file:
//
//	w, err := comfyui.ParseWorkflow(data)
//	w, _ = w.With(map[string]any{"prompt": "a bee on a flower"})
//	r, err := client.Run(ctx, w, nil)
//	for _, f := range r.Files {
//		name, data, err := client.Fetch(ctx, f, 100<<20)
//	}
//
// The client polls for progress instead of using ComfyUI's WebSocket: a few requests per
// second cost little compared with generating an image.
//
// The protocol is described in
// https://docs.comfy.org/development/comfyui-server/comms_routes: POST /prompt queues a
// workflow, GET /queue returns the queue, GET /history/{id} returns the result of a
// workflow, GET /view returns a file, and POST /queue and POST /interrupt cancel a
// workflow.
package comfyui
