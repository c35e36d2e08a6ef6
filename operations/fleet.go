package operations

import "time"

// FleetPath is the URL path at which a queen serves the state of all hives. GET returns
// one [FleetSnapshot]. GET with Accept: text/event-stream returns a stream of server-sent
// events, each a FleetSnapshot: one immediately, and one after each change, at most two
// per second.
const FleetPath = "/v1/fleet"

// WatchPath is the URL path at which a hive daemon serves the state of its hive. GET
// returns a stream of server-sent events, each a [HiveSnapshot]: one immediately, and one
// after each change. The daemon sends a comment every few seconds, so that a client can
// detect a broken connection.
const WatchPath = "/v1/watch"

// HiveSnapshot is the state of a hive at one point in time.
type HiveSnapshot struct {
	// Time is the time of the snapshot, by the clock of the hive.
	Time time.Time `json:"time"`

	// Version is the version of the hive daemon, and Since its start time.
	Version string    `json:"version"`
	Since   time.Time `json:"since"`

	// Machine describes the hardware, without the list of processes. The daemon updates
	// Machine periodically; MachineAt is the time of the last update.
	Machine   HiveCapabilitiesReport `json:"machine"`
	MachineAt time.Time              `json:"machine_at"`

	// WorkerTypes lists the installed worker types.
	WorkerTypes []InstalledWorkerType `json:"installed"`

	// Workers lists the worker processes, except stopped ones.
	Workers []WorkerProcess `json:"workers"`

	// Models lists the models on disk, without their files.
	Models []Model `json:"models"`
}

// InstalledWorkerType is an installed worker type.
type InstalledWorkerType struct {
	Type    string `json:"type"`
	Version string `json:"version,omitempty"`

	// Formats lists the model formats that the worker type can serve, such as "gguf".
	// Empty if they are not known.
	Formats []string `json:"formats,omitempty"`
}

// Link is the state of the connection between a queen and a hive.
type Link string

// The states of a connection.
const (
	LinkConnecting Link = "connecting" // not connected since the start of the queen
	LinkOnline     Link = "online"     // data received in the last 15 seconds
	LinkStale      Link = "stale"      // no data for 15 seconds
	LinkOffline    Link = "offline"    // no data for 45 seconds, or connection closed
)

// HiveView is the state of a hive as known to the queen.
type HiveView struct {
	Alias    string   `json:"alias"`
	Hostname string   `json:"hostname"`
	Labels   []string `json:"labels,omitempty"`

	Link Link `json:"link"`

	// Problem is the reason why the hive is not online. May be empty.
	Problem string `json:"problem,omitempty"`

	// SeenAt is the time when the queen last received data from the hive; zero if never.
	SeenAt time.Time `json:"seen_at,omitzero"`

	// Snapshot is the last snapshot that the hive sent; nil if it has not sent one. It
	// is also set while the hive is offline.
	Snapshot *HiveSnapshot `json:"snapshot,omitempty"`
}

// FleetSnapshot is the state of a queen and its hives at one point in time.
type FleetSnapshot struct {
	Time    time.Time `json:"time"`
	Version string    `json:"version"` // of the queen
	Since   time.Time `json:"since"`   // start time of the queen
	Config  string    `json:"config"`  // path of the config file

	// ConfigProblem is the reason why the config cannot be read; empty if it can. Until
	// the problem is fixed, the queen uses the previous config.
	ConfigProblem string `json:"config_problem,omitempty"`

	// Hives lists the hives of the config, sorted by alias.
	Hives []HiveView `json:"hives"`

	Traffic Traffic `json:"traffic"`

	// Drift is the result of the last drift check, and DriftAt its time. The queen
	// checks for drift periodically.
	Drift   []Drift   `json:"drift"`
	DriftAt time.Time `json:"drift_at,omitzero"`
}

// Traffic summarizes the requests to the gateway of a queen.
type Traffic struct {
	// IntervalSeconds is the interval between two points, in seconds.
	IntervalSeconds float64 `json:"every_seconds"`

	// Points lists the points of up to five minutes, oldest first. The interval of the
	// last point includes the time of the snapshot, so the counts of this point are
	// incomplete.
	Points []TrafficPoint `json:"points"`

	// Models counts requests per model since the start of the queen.
	Models []ModelTraffic `json:"models"`

	// InFlight is the number of requests being processed, and Waiting the number of
	// requests waiting for a model to load.
	InFlight int `json:"in_flight"`
	Waiting  int `json:"waiting"`
}

// TrafficPoint summarizes the requests of one interval.
type TrafficPoint struct {
	Time     time.Time `json:"time"` // start of the interval
	Requests int       `json:"requests"`
	Errors   int       `json:"errors"`
	Tokens   int       `json:"tokens"` // generated tokens

	// FirstToken is the median time to the first byte of a response, in seconds. 0 without
	// requests.
	FirstToken float64 `json:"first_token_seconds"`
}

// ModelTraffic summarizes the requests for one model.
type ModelTraffic struct {
	Model    string `json:"model"`
	Requests int64  `json:"requests"`
	Errors   int64  `json:"errors"`
	Tokens   int64  `json:"tokens"`
	InFlight int    `json:"in_flight"`
}
