// Package comfyui speaks ComfyUI's own dialect: graphs of nodes that make pictures.
//
// A [Workflow] is a graph in the API format, which ComfyUI exports as "Save (API
// format)". [Client.Run] queues one, waits until it has run, and tells which files
// came out; [Client.Fetch] fetches a file:
//
//	w, err := comfyui.ParseWorkflow(data)
//	w, _ = w.With(map[string]any{"prompt": "a bee on a flower"})
//	r, err := client.Run(ctx, w, nil)
//	for _, f := range r.Files {
//		name, data, err := client.Fetch(ctx, f, 100<<20)
//	}
//
// How far a graph is comes from asking, not from ComfyUI's WebSocket: a request a
// second at most costs nothing beside making a picture.
//
// The dialect is that of https://docs.comfy.org/development/comfyui-server/comms_routes:
// POST /prompt queues, GET /queue tells who waits, GET /history/{id} what came of
// one, GET /view gives a file, POST /interrupt and POST /queue take one back.
package comfyui
