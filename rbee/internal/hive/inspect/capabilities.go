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

// Machine is what this machine has.
func (in *Inspector) Machine() machine.Machine {
	m := machine.Machine{Home: in.Home.Root, Detector: in.Detector}
	if m.Detector == nil {
		m.Detector = &in.defaultDetector
	}
	m.ModelsPath, _ = models.DefaultDir(in.Home.Getenv) // without a home directory there is none
	return m
}

// Capabilities tells what this machine has, and who holds its accelerators' memory.
// It needs no daemon: which of them are workers is read from the workers' records.
func (in *Inspector) Capabilities(ctx context.Context) (*operations.HiveCapabilitiesReport, error) {
	var holders []operations.DeviceProcess
	var all sync.WaitGroup
	at := time.Now()
	all.Go(func() { holders = in.holders(ctx) })
	r, err := in.Resources(ctx)
	all.Wait()
	if err != nil {
		return nil, err
	}
	r.Processes = holders
	_ = workers.Reserve(in.Home.Path(home.WorkerRecords), r.Devices, holders, at) // without records nothing is reserved
	return r, nil
}

// Resources is what this machine has, without who uses it.
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

// holders are the processes that hold memory on the accelerators, those of workers
// with their ids. A tool that fails shows in its devices.
func (in *Inspector) holders(ctx context.Context) []operations.DeviceProcess {
	list, _ := in.Machine().Processes(ctx)
	if len(list) == 0 {
		return nil
	}
	whose, err := workers.Whose(in.Home.Path(home.WorkerRecords))
	if err != nil {
		return list // they hold the memory, whosever they are
	}
	for i := range list {
		list[i].WorkerID = whose[list[i].PID]
	}
	return list
}
