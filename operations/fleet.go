package operations

import "time"

// FleetPath is where a queen tells of its whole fleet: with GET as one
// [FleetSnapshot], and with Accept: text/event-stream as a stream of them, one at
// once and one whenever something has changed, at most twice a second.
const FleetPath = "/v1/fleet"

// WatchPath is where a hive tells of itself: with GET a stream of server-sent
// events, each a [HiveSnapshot], one at once and one whenever something has
// changed. Every few seconds a comment comes, so that silence means something.
const WatchPath = "/v1/watch"

// HiveSnapshot is all that a hive tells of itself at one moment.
type HiveSnapshot struct {
	// Time is when, by the hive's own clock.
	Time time.Time `json:"time"`

	// Version is that of the rbee that the daemon runs, Since when it was started.
	Version string    `json:"version"`
	Since   time.Time `json:"since"`

	// Machine is what the machine has; its processes are left out. It is asked for
	// now and then: MachineAt is when.
	Machine   HiveCapabilitiesReport `json:"machine"`
	MachineAt time.Time              `json:"machine_at"`

	// Installed are the worker types that are installed.
	Installed []InstalledType `json:"installed"`

	// Workers are the worker processes, but for those that were stopped.
	Workers []WorkerProcess `json:"workers"`

	// Models are those on disk, without their files.
	Models []Model `json:"models"`
}

// InstalledType is an installed worker type.
type InstalledType struct {
	Type    string `json:"type"`
	Version string `json:"version,omitempty"`

	// Formats are the formats of models that it serves, such as "gguf"; empty if
	// it is not known to serve any.
	Formats []string `json:"formats,omitempty"`
}

// Link is how a queen stands with a hive.
type Link string

// The states of a link.
const (
	LinkConnecting Link = "connecting" // not heard yet since the queen was started
	LinkOnline     Link = "online"
	LinkStale      Link = "stale"   // not heard for 15 seconds
	LinkOffline    Link = "offline" // not heard for 45 seconds, or the connection is gone
)

// HiveView is what a queen knows of a hive.
type HiveView struct {
	Alias    string   `json:"alias"`
	Hostname string   `json:"hostname"`
	Labels   []string `json:"labels,omitempty"`

	Link Link `json:"link"`

	// Problem is why it is not online. May be empty.
	Problem string `json:"problem,omitempty"`

	// SeenAt is when it was heard last; zero if never.
	SeenAt time.Time `json:"seen_at,omitzero"`

	// Snapshot is what it said last; nil if nothing yet. It stays while the hive
	// is away: SeenAt tells how old it is.
	Snapshot *HiveSnapshot `json:"snapshot,omitempty"`
}

// FleetSnapshot is all that a queen knows at one moment.
type FleetSnapshot struct {
	Time    time.Time `json:"time"`
	Version string    `json:"version"`
	Since   time.Time `json:"since"` // when the queen was started
	Config  string    `json:"config"`

	// ConfigProblem is why the config cannot be read; what it said before counts
	// until then.
	ConfigProblem string `json:"config_problem,omitempty"`

	// Hives are those of the config, sorted by alias.
	Hives []HiveView `json:"hives"`

	Traffic Traffic `json:"traffic"`

	// Drift is what `rbee status` found last, at DriftAt; a queen looks now and then.
	Drift   []Drift   `json:"drift"`
	DriftAt time.Time `json:"drift_at,omitzero"`
}

// Traffic is what goes through a queen's gateway: the last minutes as points, and
// what there was since it was started, model by model.
type Traffic struct {
	// EverySeconds is the time between two points, the last of which is still going
	// on; Points are oldest first.
	EverySeconds float64        `json:"every_seconds"`
	Points       []TrafficPoint `json:"points"`

	Models []ModelTraffic `json:"models"`

	// InFlight are requests that are being answered, Waiting those that wait for a
	// model to be loaded.
	InFlight int `json:"in_flight"`
	Waiting  int `json:"waiting"`
}

// TrafficPoint is a piece of time.
type TrafficPoint struct {
	Time     time.Time `json:"time"` // its beginning
	Requests int       `json:"requests"`
	Errors   int       `json:"errors"`
	Tokens   int       `json:"tokens"` // that were generated

	// FirstToken is the median time to the first byte of an answer, in seconds; 0
	// without requests.
	FirstToken float64 `json:"first_token_seconds"`
}

// ModelTraffic is what one model was asked.
type ModelTraffic struct {
	Model    string `json:"model"`
	Requests int64  `json:"requests"`
	Errors   int64  `json:"errors"`
	Tokens   int64  `json:"tokens"`
	InFlight int    `json:"in_flight"`
}
