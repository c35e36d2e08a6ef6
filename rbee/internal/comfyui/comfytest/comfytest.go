// Package comfytest provides a fake ComfyUI server for tests. The server queues graphs, runs
// them one after the other, and generates small images.
package comfytest

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/filelock"
)

// Server is a fake ComfyUI server. Create it with [New].
type Server struct {
	// Dir is the base directory with the models. If Dir is empty, the server accepts every
	// model.
	Dir string

	mux *http.ServeMux

	mu      sync.Mutex
	next    int
	pending []job
	running *job
	history map[string]any
	files   map[string][]byte
	wake    chan struct{}
	closed  chan struct{}
	stop    chan struct{} // closed to interrupt the running graph
}

type job struct {
	number int
	id     string
	graph  map[string]node
}

type node struct {
	Class  string         `json:"class_type"`
	Inputs map[string]any `json:"inputs"`
}

// classes lists the supported classes of nodes. Fail fails with the message in its inputs,
// and Sleep waits for the number of seconds in its inputs.
var classes = []string{
	"CheckpointLoaderSimple", "CLIPTextEncode", "KSampler", "EmptyLatentImage", "VAEDecode", "SaveImage", "PreviewImage", "Fail", "Sleep",
}

// New starts a server. Call [Server.Close] to stop it.
func New() *Server {
	s := &Server{
		mux: http.NewServeMux(), history: map[string]any{}, files: map[string][]byte{},
		wake: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	s.mux.HandleFunc("GET /system_stats", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, map[string]any{"system": map[string]string{"os": "posix"}})
	})
	s.mux.HandleFunc("POST /prompt", s.prompt)
	s.mux.HandleFunc("GET /queue", s.queue)
	s.mux.HandleFunc("POST /queue", s.remove)
	s.mux.HandleFunc("POST /interrupt", s.interrupt)
	s.mux.HandleFunc("GET /history/{id}", s.getHistory)
	s.mux.HandleFunc("GET /view", s.view)
	go s.run()
	return s
}

// Main runs a server if the test binary was started with the argument "comfytest", followed
// by arguments of ComfyUI. Otherwise Main returns immediately. Like ComfyUI, the server exits
// with an error if the base directory has no custom_nodes, or if another process has locked
// the database.
func Main() {
	if len(os.Args) < 2 || os.Args[1] != "comfytest" {
		return
	}
	flags := flag.NewFlagSet("comfytest", flag.ExitOnError)
	host, port, dir := flags.String("listen", "", ""), flags.String("port", "", ""), flags.String("base-directory", "", "")
	database := flags.String("database-url", "", "")
	flags.Bool("disable-auto-launch", false, "")
	flags.Bool("cpu", false, "")
	_ = flags.Parse(os.Args[2:]) // exits on error
	lock, err := checkStart(*dir, *database)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	s := New()
	s.Dir = *dir
	fmt.Println("To see the GUI go to: http://" + net.JoinHostPort(*host, *port))
	fmt.Println(http.ListenAndServe(net.JoinHostPort(*host, *port), s))
	runtime.KeepAlive(lock)
	os.Exit(1)
}

// checkStart checks the base directory and locks the database, if any. Closing the lock
// releases it. The errors have the format of ComfyUI.
func checkStart(dir, database string) (*filelock.Lock, error) {
	nodes := filepath.Join(dir, "custom_nodes")
	if _, err := os.ReadDir(nodes); err != nil {
		return nil, fmt.Errorf("FileNotFoundError: [Errno 2] No such file or directory: '%s'", nodes)
	}
	path, ok := strings.CutPrefix(database, "sqlite:///")
	if !ok {
		return nil, nil // no database
	}
	l, err := filelock.Try(path+".lock", 0o700)
	if err != nil {
		return nil, fmt.Errorf("RuntimeError: Could not acquire lock on database '%s': %w", path, err)
	}
	return l, nil
}

// Close stops the server.
func (s *Server) Close() { close(s.closed) }

// Forget clears the queue and the history, like a restart of ComfyUI.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending, s.history = nil, map[string]any{}
	if s.running != nil {
		close(s.stop)
		s.running = nil
	}
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client detects a partial response
}

func (s *Server) prompt(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Prompt map[string]node `json:"prompt"`
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		writeJSON(w, 400, map[string]any{"error": map[string]string{"type": "no_prompt", "message": "No prompt provided", "details": ""}, "node_errors": map[string]any{}})
		return
	}
	nodeErrors, outputs := map[string]any{}, 0
	for id, n := range q.Prompt {
		if !slices.Contains(classes, n.Class) {
			nodeErrors[id] = map[string]any{"class_type": n.Class, "errors": []any{map[string]string{"message": "Node type not found", "details": n.Class}}}
		}
		if name, ok := n.Inputs["ckpt_name"].(string); ok && n.Class == "CheckpointLoaderSimple" && !s.hasModel(name) {
			nodeErrors[id] = map[string]any{"class_type": n.Class, "errors": []any{map[string]string{"message": "Value not in list", "details": "ckpt_name: '" + name + "'"}}}
		}
		if n.Class == "SaveImage" || n.Class == "PreviewImage" {
			outputs++
		}
	}
	if len(nodeErrors) > 0 || outputs == 0 {
		writeJSON(w, 400, map[string]any{"error": map[string]string{"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation", "details": ""}, "node_errors": nodeErrors})
		return
	}
	s.mu.Lock()
	s.next++
	j := job{s.next, fmt.Sprintf("id-%d", s.next), q.Prompt}
	s.pending = append(s.pending, j)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	writeJSON(w, 200, map[string]any{"prompt_id": j.id, "number": j.number, "node_errors": map[string]any{}})
}

func (s *Server) hasModel(model string) bool {
	if s.Dir == "" {
		return true
	}
	_, err := os.Stat(filepath.Join(s.Dir, "models", "checkpoints", model))
	return err == nil
}

func (s *Server) run() {
	for {
		s.mu.Lock()
		if len(s.pending) == 0 {
			s.mu.Unlock()
			select {
			case <-s.wake:
				continue
			case <-s.closed:
				return
			}
		}
		j := s.pending[0]
		s.pending, s.running, s.stop = s.pending[1:], &j, make(chan struct{})
		stop := s.stop
		s.mu.Unlock()
		result := s.execute(j, stop)
		s.mu.Lock()
		if s.running != nil && s.running.id == j.id {
			s.running, s.history[j.id] = nil, result
		}
		s.mu.Unlock()
	}
}

func (s *Server) execute(j job, stop chan struct{}) any {
	failed := func(id string, n node, kind, message string) any {
		return map[string]any{"outputs": map[string]any{}, "status": map[string]any{"status_str": "error", "completed": false, "messages": []any{
			[]any{"execution_start", map[string]any{"prompt_id": j.id}},
			[]any{kind, map[string]any{"node_id": id, "node_type": n.Class, "exception_message": message}},
		}}}
	}
	outputs := map[string]any{}
	for id, n := range j.graph {
		if n.Class == "Sleep" {
			seconds, _ := n.Inputs["seconds"].(float64)
			select {
			case <-stop:
				return failed(id, n, "execution_interrupted", "")
			case <-s.closed:
			case <-time.After(time.Duration(seconds * float64(time.Second))):
			}
		}
		if n.Class == "Fail" {
			return failed(id, n, "execution_error", fmt.Sprint(n.Inputs["message"]))
		}
	}
	for id, n := range j.graph {
		kind := map[string]string{"SaveImage": "output", "PreviewImage": "temp"}[n.Class]
		if kind == "" {
			continue
		}
		name := fmt.Sprintf("%v_%05d_.png", n.Inputs["filename_prefix"], j.number)
		s.mu.Lock()
		s.files[kind+"//"+name] = renderImage(j.graph)
		s.mu.Unlock()
		outputs[id] = map[string]any{"images": []any{map[string]string{"filename": name, "subfolder": "", "type": kind}}}
	}
	return map[string]any{"outputs": outputs, "status": map[string]any{"status_str": "success", "completed": true, "messages": []any{}}}
}

// renderImage returns a PNG image whose color depends on all texts of the graph.
func renderImage(graph map[string]node) []byte {
	sum := uint32(0)
	for _, n := range graph {
		for _, v := range n.Inputs {
			if text, ok := v.(string); ok {
				for _, r := range text {
					sum += uint32(r) * 2654435761
				}
			}
		}
	}
	img := image.NewRGBA(image.Rect(0, 0, 8, 8))
	for i := range 64 {
		img.Set(i%8, i/8, color.RGBA{uint8(sum), uint8(sum >> 8), uint8(sum >> 16), 255})
	}
	var out bytes.Buffer
	_ = png.Encode(&out, img) // writing to a buffer cannot fail
	return out.Bytes()
}

func (s *Server) queue(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	running, pending := []any{}, []any{}
	if s.running != nil {
		running = append(running, []any{s.running.number, s.running.id, map[string]any{}})
	}
	for _, j := range s.pending {
		pending = append(pending, []any{j.number, j.id, map[string]any{}})
	}
	writeJSON(w, 200, map[string]any{"queue_running": running, "queue_pending": pending})
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Delete []string `json:"delete"`
	}
	_ = json.NewDecoder(r.Body).Decode(&q) // on error, nothing is deleted
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = slices.DeleteFunc(s.pending, func(j job) bool { return slices.Contains(q.Delete, j.id) })
}

func (s *Server) interrupt(_ http.ResponseWriter, r *http.Request) {
	var q struct {
		ID string `json:"prompt_id"`
	}
	_ = json.NewDecoder(r.Body).Decode(&q) // without an ID, the running graph is interrupted
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil && (q.ID == "" || q.ID == s.running.id) {
		select {
		case <-s.stop:
		default:
			close(s.stop)
		}
	}
}

func (s *Server) getHistory(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]any{}
	if h, ok := s.history[r.PathValue("id")]; ok {
		out[r.PathValue("id")] = h
	}
	writeJSON(w, 200, out)
}

func (s *Server) view(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	s.mu.Lock()
	data, ok := s.files[strings.Join([]string{q.Get("type"), q.Get("subfolder"), q.Get("filename")}, "/")]
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "image/png")
	_, _ = w.Write(data) // the client detects a partial response
}
