package gateway

import (
	"encoding/json"
	"net/http"
)

// modelObject is a model as OpenAI writes it, and what is known of it besides.
type modelObject struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"`
	OwnedBy string   `json:"owned_by"`
	Loaded  bool     `json:"loaded"`
	Workers []string `json:"workers"`
}

func objectOf(m ModelInfo) modelObject {
	o := modelObject{ID: m.ID, Object: "model", OwnedBy: "rbee", Loaded: m.Loaded, Workers: m.Workers}
	if !m.Created.IsZero() {
		o.Created = m.Created.Unix()
	}
	if o.Workers == nil {
		o.Workers = []string{}
	}
	return o
}

// models lists the models.
func (x *exchange) models() {
	list := []modelObject{}
	for _, m := range x.Fleet.Models(x.ctx) {
		list = append(list, objectOf(m))
	}
	x.show(struct {
		Object string        `json:"object"`
		Data   []modelObject `json:"data"`
	}{"list", list})
}

// model tells of one.
func (x *exchange) model(id string) {
	if err := checkName(len(id)); err != nil {
		x.refuse(err)
		return
	}
	x.sample.Model = id
	for _, m := range x.Fleet.Models(x.ctx) {
		if m.ID == id {
			x.show(objectOf(m))
			return
		}
	}
	no := refusalf(http.StatusNotFound, "model_not_found", "there is no model %q", id)
	no.param = "model"
	x.refuse(no)
}

// show answers with something that can always be written.
func (x *exchange) show(v any) {
	data, _ := json.Marshal(v)
	x.reply(http.StatusOK, data)
}
