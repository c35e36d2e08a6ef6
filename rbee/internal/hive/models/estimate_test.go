package models

import (
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/model"
)

func TestEstimate(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	gguf := w.mustDownload(t, "org/gguf").Model
	// 2 layers × 4096 tokens × 2 heads × (64 + 64) × 2 bytes
	if e, err := model.EstimateMemory(gguf, 0); err != nil || e.Cache != 2*4096*2*128*2 || e.Weights != gguf.Bytes || e.Total() != e.Cache+e.Weights {
		t.Errorf("EstimateMemory(gguf, 0) = %+v, %v, want the cache of 4096 tokens", e, err)
	}
	if e, err := model.EstimateMemory(gguf, 100); err != nil || e.Cache != 2*100*2*128*2 || !strings.Contains(e.Explain(), "100 tokens of context in 2 layers") {
		t.Errorf("EstimateMemory(gguf, 100) = %+v, %v (%s), want the cache of 100 tokens", e, err, e.Explain())
	}
	tensors := w.mustDownload(t, "org/tensors").Model
	// 4 layers × 8192 tokens × 2 heads × (64 + 64) × 2 bytes; the weights are only the shards
	if e, err := model.EstimateMemory(tensors, 0); err != nil || e.Cache != 4*8192*2*128*2 || e.Weights != 800_000 {
		t.Errorf("EstimateMemory(tensors, 0) = %+v, %v, want the cache of 8192 tokens and 800000 bytes of weights", e, err)
	}
	if _, err := model.EstimateMemory(w.mustDownload(t, "org/plain").Model, 0); err == nil {
		t.Error("EstimateMemory() of an unknown format = nil, want an error")
	}
}
