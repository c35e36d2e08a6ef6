package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// Info is the response of the daemon to GET /v1/info.
type Info struct {
	Alias   string        `json:"alias"`
	Version string        `json:"version"`
	SHA256  string        `json:"sha256"` // SHA-256 of the daemon's binary, in hex
	PID     int           `json:"pid"`
	Port    int           `json:"port"`
	Since   time.Time     `json:"since"`
	Workers []wire.Worker `json:"workers"`
}

// Record is the content of run/hive.json.
type Record struct {
	proc.ID
	Port       int       `json:"port"`
	Version    string    `json:"version"`
	SHA256     string    `json:"sha256"`
	Since      time.Time `json:"since"`
	Supervisor string    `json:"supervisor"`
}

// Loopback returns the address of a port on this machine.
func Loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Token returns the token of the daemon from its file.
func (dm *Daemon) Token() (string, error) {
	data, err := os.ReadFile(dm.Home.Path(home.TokenFile))
	token := strings.TrimSpace(string(data))
	if err == nil && len(token) != 64 {
		err = errors.New("the file is incomplete")
	}
	if err != nil {
		return "", fmt.Errorf("cannot read the daemon token: %w", err)
	}
	return token, nil
}

// fetchInfo requests /v1/info from the daemon.
func (dm *Daemon) fetchInfo(ctx context.Context, port int) (*Info, error) {
	token, err := dm.Token()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+Loopback(port)+"/v1/info", http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET /v1/info on port %d: %s", port, resp.Status)
	}
	var info Info
	return &info, json.NewDecoder(resp.Body).Decode(&info)
}
