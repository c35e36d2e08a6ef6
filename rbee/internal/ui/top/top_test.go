package top

import (
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

func gib(n float64) uint64 { return uint64(n * (1 << 30)) }

func h100(index int, used, busy float64) gpu.Device {
	return gpu.Device{
		Index: index, Vendor: "nvidia", Name: "NVIDIA H100 80GB HBM3", UUID: fmt.Sprint("GPU-", index), MemoryTotal: gib(80), MemoryUsed: ptr(gib(used)),
		Utilization: ptr(busy), Temperature: ptr(40 + busy/4), Power: ptr(70 + 6*busy),
	}
}

func worker(id, model string, state operations.WorkerState, since time.Duration, requests int, devices ...operations.WorkerDevice) operations.WorkerProcess {
	return operations.WorkerProcess{ID: id, Worker: "vllm", Model: model, State: state, StartedAt: before(since), Devices: devices, Requests: requests}
}

// mixedFleet returns a fleet with hives, workers and devices in many states.
func mixedFleet() operations.FleetSnapshot {
	hive := func(alias string, link operations.Link, age time.Duration, workers []operations.WorkerProcess, devices ...gpu.Device) operations.HiveView {
		return operations.HiveView{Alias: alias, Hostname: alias + ".lan", Link: link, SeenAt: before(age), Snapshot: &operations.HiveSnapshot{
			Time: before(age), Version: "1.2.3", Workers: workers, Machine: operations.HiveCapabilitiesReport{
				Alias: alias, CPU: operations.CPU{Model: "AMD EPYC 9354", Threads: 64}, MemoryTotal: gib(512), MemoryAvailable: gib(448), Devices: devices,
			},
		}}
	}
	failed := failedWorker()
	failed.RestartAt = present.Add(20 * time.Second)
	broken := gpu.Device{Index: 1, Vendor: "nvidia", Name: "NVIDIA H100 80GB HBM3", Error: "GPU is lost"}
	stale := hive("gpu-3", operations.LinkStale, 20*time.Second, nil, gpu.Device{Index: 0, Vendor: "amd", Name: "AMD Instinct MI300X", MemoryTotal: gib(192)}, broken)
	offline := hive("gpu-4", operations.LinkOffline, 3*time.Minute, []operations.WorkerProcess{worker("vllm-9z8y", "Qwen/Qwen3-8B", operations.WorkerReady, time.Hour, 3, gpu0)}, h100(0, 60, 90))
	offline.Problem = "cannot reach bee@10.0.0.4:22: no route to host"
	points := make([]operations.TrafficPoint, 40)
	for i := range points {
		points[i] = operations.TrafficPoint{Time: before(time.Duration(5*(len(points)-i)-3) * time.Second), Requests: i * i % 17, Tokens: 10 * i, FirstToken: float64(i) / 100}
	}
	points[7].Errors = 2
	return operations.FleetSnapshot{
		Time: present, Version: "1.2.3", Since: before(26 * time.Hour), Config: "/home/me/.config/rbee/hives.conf",
		ConfigProblem: "hives.conf:12:3: unknown key \"hostnam\"",
		Hives: []operations.HiveView{
			hive("gpu-1", operations.LinkOnline, time.Second, []operations.WorkerProcess{
				worker("vllm-1a2b", "Qwen/Qwen3-8B", operations.WorkerReady, 3*time.Hour+12*time.Minute, 4, gpu0),
				worker("vllm-5e6f", "meta-llama/Llama-3.3-70B-Instruct", operations.WorkerLoading, 40*time.Second, 0, gpu0, gpu1), failed,
			}, h100(0, 61.3, 93), h100(1, 0.4, 0)),
			hive("gpu-2", operations.LinkOnline, time.Second, []operations.WorkerProcess{
				worker("llama-cpp-7g8h", "org/repo:m.gguf", operations.WorkerReady, 50*time.Hour, 0),
			}),
			stale, offline,
			{Alias: "gpu-5", Hostname: "gpu-5", Link: operations.LinkConnecting},
		},
		Traffic: operations.Traffic{IntervalSeconds: 5, Points: points, InFlight: 4, Waiting: 1, Models: []operations.ModelTraffic{
			{Model: "org/repo:m.gguf", Requests: 12, Tokens: 800},
			{Model: "Qwen/Qwen3-8B", Requests: 45_300, Errors: 2, Tokens: 12_400_000, InFlight: 4},
		}},
		Drift: []operations.Drift{{Hive: "gpu-1", Issue: operations.IssueExtraWorker, Worker: "comfyui"}, {Hive: "gpu-2", Issue: operations.IssueMissingWorker, Worker: "vllm"}}, DriftAt: before(2 * time.Minute),
	}
}

// healthyFleet returns a fleet without problems.
func healthyFleet(hives int) operations.FleetSnapshot {
	s := mixedFleet()
	s.ConfigProblem, s.Drift, s.Traffic.Waiting = "", nil, 0
	one := s.Hives[0]
	s.Hives = nil
	for i := range hives {
		h, snapshot := one, *one.Snapshot
		h.Alias, h.Snapshot = fmt.Sprintf("gpu-%03d", i), &snapshot
		snapshot.Workers = nil
		if i%5 == 0 {
			snapshot.Workers = one.Snapshot.Workers[:1]
		}
		s.Hives = append(s.Hives, h)
	}
	return s
}

func TestFrames(t *testing.T) {
	t.Parallel()
	at := Options{Queen: "http://127.0.0.1:8500", Keys: "q quit", Age: time.Second}
	offline := mixedFleet()
	offline.Hives[2].Link, offline.Hives[2].Problem = operations.LinkOffline, "no response for 50s"
	for name, c := range map[string]struct {
		s operations.FleetSnapshot
		o Options
	}{
		"80x24":     {mixedFleet(), Options{Width: 80, Height: 24}},
		"40x10":     {mixedFleet(), Options{Width: 40, Height: 10}},
		"160x50":    {mixedFleet(), Options{Width: 160, Height: 50}},
		"all":       {mixedFleet(), Options{}},
		"200_hives": {healthyFleet(200), Options{Width: 100, Height: 30}},
		"200_all":   {healthyFleet(200), Options{Width: 120, Height: 1000}},
		"healthy":   {healthyFleet(3), Options{Width: 100, Height: 40}},
		"empty":     {operations.FleetSnapshot{Version: "1.2.3"}, Options{Width: 80, Height: 24}},
		"ascii":     {mixedFleet(), Options{Width: 100, Height: 24, ASCII: true}},
		"color":     {mixedFleet(), Options{Width: 100, Height: 40, Color: true}},
		"no_queen":  {offline, Options{Width: 90, Height: 28, Age: 42 * time.Second, Problem: "connection refused"}},
	} {
		o := c.o
		o.Queen, o.Keys = at.Queen, at.Keys
		if o.Age == 0 {
			o.Age = at.Age
		}
		got := Frame(c.s, present, o)
		golden(t, name, strings.ReplaceAll(got, "\x1b", "ESC"))
		if again := Frame(c.s, present, o); again != got {
			t.Errorf("%s: second Frame() of the same fleet =\n%s\nwant\n%s", name, again, got)
		}
	}
}

var (
	colorCode  = regexp.MustCompile(`\x1b\[[0-9]+m`)
	colorStart = regexp.MustCompile(`\x1b\[[1-9][0-9]*m`)
)

// checkFrame checks the size and the characters of a frame.
func checkFrame(t *testing.T, frame string, o Options) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(frame, "\n"), "\n")
	if !strings.HasSuffix(frame, "\n") || o.Height > 0 && len(lines) > o.Height {
		t.Fatalf("Frame() of size %dx%d has %d lines, want at most the height and a newline at the end:\n%s", o.Width, o.Height, len(lines), frame)
	}
	if o.Color && len(colorStart.FindAllString(frame, -1)) != strings.Count(frame, "\x1b[0m") || !o.Color && strings.Contains(frame, "\x1b") {
		t.Fatalf("Frame() of size %dx%d with colors %t = %q, want colors only if enabled, and each one reset", o.Width, o.Height, o.Color, frame)
	}
	for _, line := range lines {
		text := colorCode.ReplaceAllString(line, "")
		if w := textWidth(text); o.Width > 0 && w > o.Width {
			t.Fatalf("Frame() of size %dx%d has a line of %d columns, want at most the width: %q", o.Width, o.Height, w, line)
		}
		for _, r := range text {
			if format.IsHidden(r) || r == utf8.RuneError || unicode.Is(unicode.Cf, r) || o.ASCII && r > '~' {
				t.Fatalf("Frame() of size %dx%d has the character %q in line %q, want only printable characters", o.Width, o.Height, r, line)
			}
		}
	}
}

// hostileFleet returns a random fleet of extreme and malicious values.
func hostileFleet(random *rand.Rand) operations.FleetSnapshot {
	pieces := []string{
		"gpu", "\x1b[2J\x1b[H", "\x1b]0;title\x07", "\r\n", "日本語モデル", "🐝👩‍👩‍👧‍👦", "e\u0301\u0302\u0303", "\u202egnp", "\xff\xfe", "⚠️", "\u200b", "\u2028", "  ", strings.Repeat("x", 300), "ｆｕｌｌ", "한국어", "\u009b31m", "°C", "\t", "🇩🇪",
	}
	text := func() string {
		var b strings.Builder
		for range random.IntN(5) {
			b.WriteString(pieces[random.IntN(len(pieces))])
		}
		return b.String()
	}
	number := func() *float64 {
		values := []float64{0, 3, 100, -1e300, 1e300, math.NaN(), math.Inf(1)}
		if random.IntN(3) == 0 {
			return nil
		}
		return &values[random.IntN(len(values))]
	}
	size := func() uint64 { return []uint64{0, 1, gib(80), 1 << 63, math.MaxUint64}[random.IntN(5)] }
	integer := func() int { return []int{0, 1, 7, -5, math.MaxInt, math.MinInt}[random.IntN(6)] }
	moment := func() time.Time {
		return []time.Time{{}, present, before(time.Hour), present.Add(1e6 * time.Hour), time.Unix(1<<60, 0)}[random.IntN(5)]
	}
	s := operations.FleetSnapshot{Time: moment(), Version: text(), ConfigProblem: text(), Drift: make([]operations.Drift, random.IntN(3)), DriftAt: moment()}
	links := []operations.Link{operations.LinkConnecting, operations.LinkOnline, operations.LinkStale, operations.LinkOffline, operations.Link(text())}
	states := []operations.WorkerState{operations.WorkerReady, operations.WorkerFailed, operations.WorkerLoading, operations.WorkerState(text())}
	for range random.IntN(30) {
		h := operations.HiveView{Alias: text(), Link: links[random.IntN(len(links))], Problem: text(), SeenAt: moment()}
		if random.IntN(4) > 0 {
			h.Snapshot = &operations.HiveSnapshot{Machine: operations.HiveCapabilitiesReport{CPU: operations.CPU{Model: text()}, MemoryTotal: size(), MemoryAvailable: size()}}
			for range random.IntN(5) {
				total, used := size(), size()
				d := gpu.Device{Index: integer(), Vendor: gpu.Vendor(text()), Name: text(), MemoryTotal: total, Utilization: number(), Temperature: number(), Power: number()}
				if random.IntN(2) > 0 {
					d.MemoryUsed = &used
				} else {
					d.MemoryFree = &used
				}
				if random.IntN(5) == 0 {
					d.Error = text()
				}
				h.Snapshot.Machine.Devices = append(h.Snapshot.Machine.Devices, d)
			}
			for range random.IntN(5) {
				w := worker(text(), text(), states[random.IntN(len(states))], time.Minute, integer(), make([]operations.WorkerDevice, random.IntN(20))...)
				w.Problem, w.RestartAt, w.StartedAt = text(), moment(), moment()
				h.Snapshot.Workers = append(h.Snapshot.Workers, w)
			}
		}
		s.Hives = append(s.Hives, h)
	}
	s.Traffic = operations.Traffic{IntervalSeconds: []float64{0, -1, 1e-300, 5, 1e300, math.NaN()}[random.IntN(6)], InFlight: integer(), Waiting: integer()}
	for range random.IntN(100) {
		f := number()
		if f == nil {
			f = new(float64)
		}
		s.Traffic.Points = append(s.Traffic.Points, operations.TrafficPoint{Time: moment(), Requests: integer(), Errors: integer(), Tokens: integer(), FirstToken: *f})
	}
	for range random.IntN(5) {
		s.Traffic.Models = append(s.Traffic.Models, operations.ModelTraffic{Model: text(), Requests: int64(integer()), Errors: int64(integer()), Tokens: int64(integer()), InFlight: integer()})
	}
	return s
}

func TestFrameFitsAnySize(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	fleets := []operations.FleetSnapshot{{}, mixedFleet(), healthyFleet(200)}
	for range 40 {
		fleets = append(fleets, hostileFleet(random))
	}
	for _, s := range fleets {
		for _, width := range []int{0, 1, 2, 3, 7, 13, 20, 39, 40, 80, 132, 300} {
			height := []int{0, 1, 2, 3, 5, 8, 10, 24, 60}[random.IntN(9)]
			o := Options{Width: width, Height: height, Color: random.IntN(2) > 0, ASCII: random.IntN(2) > 0, Queen: "http://h", Keys: "q quit", Age: time.Duration(random.Int64())}
			if random.IntN(2) > 0 {
				o.Problem = "dial: \x1b[2Jrefused 日本"
			}
			checkFrame(t, Frame(s, present, o), o)
		}
	}
	for width := 1; width < 200; width++ {
		o := Options{Width: width, Height: 1 + width%40}
		checkFrame(t, Frame(mixedFleet(), present, o), o)
	}
}

// TestFrameShowsProblems checks screens of many heights.
func TestFrameShowsProblems(t *testing.T) {
	t.Parallel()
	for height := 3; height < 30; height++ {
		frame := Frame(mixedFleet(), present, Options{Width: 60, Height: height})
		if !strings.Contains(frame, "! cannot read the config") && !strings.Contains(frame, "! 6 problems") {
			t.Errorf("Frame() of %d lines =\n%s\nwant a problem or the number of problems", height, frame)
		}
	}
	frame := Frame(mixedFleet(), present, Options{Width: 80, Height: 12})
	if !strings.Contains(frame, " more hives") || !strings.Contains(frame, " more problems") {
		t.Errorf("Frame() =\n%s\nwant the numbers of hidden hives and problems", frame)
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	points := []operations.TrafficPoint{{Time: before(12 * time.Second), Requests: 50}, {Time: before(7 * time.Second), Requests: 20}, {Time: before(2 * time.Second), Requests: 2}}
	for _, c := range []struct {
		late    time.Duration
		problem string
		want    float64
	}{
		{0, "", 72.0 / 12}, {3 * time.Second, "", 22.0 / 10}, {time.Hour, "", 0}, {time.Hour, "connection refused", 72.0 / 12},
	} {
		p := &page{now: present.Add(c.late), o: Options{Problem: c.problem}, s: operations.FleetSnapshot{
			Time: present, Traffic: operations.Traffic{IntervalSeconds: 5, Points: points},
		}}
		if got := p.rate(); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("rate() after %v with problem %q = %v, want %v", c.late, c.problem, got, c.want)
		}
	}
}

func TestTextWidth(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"abc": 3, "日本": 4, "🐝": 2, "e\u0301": 1, "한": 2, "▁█░…°": 5, "ｆ": 2} {
		if got := textWidth(text); got != want {
			t.Errorf("textWidth(%q) = %d, want %d", text, got, want)
		}
	}
	p := &page{}
	for width, want := range map[int]string{9: "日本語ab", 8: "日本語ab", 7: "日本語…", 6: "日本…", 1: "…"} {
		if got := p.cut("日本語ab", width); got != want {
			t.Errorf("cut(%d) = %q, want %q", width, got, want)
		}
	}
}
