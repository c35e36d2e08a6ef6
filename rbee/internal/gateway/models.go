package gateway

import (
	"encoding/json"
	"net/http"
)

// modelObject is OpenAI's model object, with the fields loaded and workers added.
type modelObject struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"`
	OwnedBy string   `json:"owned_by"`
	Loaded  bool     `json:"loaded"`
	Workers []string `json:"workers"`
}

func newModelObject(m ModelInfo) modelObject {
	o := modelObject{ID: m.ID, Object: "model", OwnedBy: "rbee", Loaded: m.Loaded, Workers: m.Workers}
	if !m.Created.IsZero() {
		o.Created = m.Created.Unix()
	}
	if o.Workers == nil {
		o.Workers = []string{}
	}
	return o
}

// models responds with the list of models.
func (x *exchange) models() {
	list := []modelObject{}
	for _, m := range x.Router.Models(x.ctx) {
		list = append(list, newModelObject(m))
	}
	x.writeValue(struct {
		Object string        `json:"object"`
		Data   []modelObject `json:"data"`
	}{"list", list})
}

// model responds with one model.
func (x *exchange) model(id string) {
	if err := checkModelLength(len(id)); err != nil {
		x.writeError(err)
		return
	}
	x.sample.Model = id
	for _, m := range x.Router.Models(x.ctx) {
		if m.ID == id {
			x.writeValue(newModelObject(m))
			return
		}
	}
	apiErr := apiErrorf(http.StatusNotFound, "model_not_found", "the model %q does not exist", id)
	apiErr.param = "model"
	x.writeError(apiErr)
}

// writeValue responds with v, which must be encodable.
func (x *exchange) writeValue(v any) {
	data, _ := json.Marshal(v)
	x.writeJSON(http.StatusOK, data)
}
