package inspect

import (
	"context"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/machine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/models"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/workers"
)

// Machine returns the machine with the directories and the detector of this hive.
func (in *Inspector) Machine() machine.Machine {
	m := machine.Machine{Home: in.Home.Root, Detector: in.Detector}
	if m.Detector == nil {
		m.Detector = &in.defaultDetector
	}
	m.ModelsPath, _ = models.DefaultDir(in.Home.Getenv) // empty without a home directory
	return m
}

// Capabilities returns the hardware of this machine and the processes that hold memory on
// its accelerators. It does not need the daemon: it reads the worker IDs from the worker
// records.
func (in *Inspector) Capabilities(ctx context.Context) (*operations.HiveCapabilitiesReport, error) {
	var deviceProcesses []operations.DeviceProcess
	var wg sync.WaitGroup
	queriedAt := time.Now()
	wg.Go(func() { deviceProcesses = in.deviceProcesses(ctx) })
	r, err := in.Resources(ctx)
	wg.Wait()
	if err != nil {
		return nil, err
	}
	r.Processes = deviceProcesses
	_ = workers.Reserve(in.Home.Path(home.WorkerRecords), r.Devices, deviceProcesses, queriedAt) // without records, nothing is reserved
	return r, nil
}

// Resources returns the same as [Inspector.Capabilities], but without processes and
// reservations.
func (in *Inspector) Resources(ctx context.Context) (*operations.HiveCapabilitiesReport, error) {
	m := in.Machine()
	name, version := libc(ctx)
	if m.Libc = name; version != "" {
		m.Libc += " " + version
	}
	r, err := m.Capabilities(ctx)
	if err != nil {
		return nil, err
	}
	if s, err := in.Home.Settings(); err == nil {
		r.Alias = s.Alias
	}
	return r, nil
}

// deviceProcesses returns the processes that hold memory on the accelerators, with the IDs of
// workers. It ignores errors of vendor tools, which the devices report.
func (in *Inspector) deviceProcesses(ctx context.Context) []operations.DeviceProcess {
	list, _ := in.Machine().Processes(ctx)
	if len(list) == 0 {
		return nil
	}
	workerIDs, err := workers.ProcessOwners(in.Home.Path(home.WorkerRecords))
	if err != nil {
		return list // without worker IDs
	}
	for i := range list {
		list[i].WorkerID = workerIDs[list[i].PID]
	}
	return list
}
