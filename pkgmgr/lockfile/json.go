package lockfile

import "github.com/rbee-keeper/rbee/pkgmgr/wire"

// The plain types have no custom JSON methods. Decoding keeps unknown fields, which a newer
// rbee wrote.
type (
	plainContent content
	plainWorker  Worker
	plainSource  Source
	plainPin     Pin
)

func (f *content) UnmarshalJSON(data []byte) error {
	return wire.DecodeKeeping(data, (*plainContent)(f), &f.Unknown)
}

func (f content) MarshalJSON() ([]byte, error) { return wire.EncodeKeeping(plainContent(f), f.Unknown) }

// UnmarshalJSON implements [json.Unmarshaler]. It keeps unknown fields.
func (w *Worker) UnmarshalJSON(data []byte) error {
	return wire.DecodeKeeping(data, (*plainWorker)(w), &w.Unknown)
}

// MarshalJSON implements [json.Marshaler]. It includes unknown fields.
func (w Worker) MarshalJSON() ([]byte, error) { return wire.EncodeKeeping(plainWorker(w), w.Unknown) }

// UnmarshalJSON implements [json.Unmarshaler]. It keeps unknown fields.
func (s *Source) UnmarshalJSON(data []byte) error {
	return wire.DecodeKeeping(data, (*plainSource)(s), &s.Unknown)
}

// MarshalJSON implements [json.Marshaler]. It includes unknown fields.
func (s Source) MarshalJSON() ([]byte, error) { return wire.EncodeKeeping(plainSource(s), s.Unknown) }

// UnmarshalJSON implements [json.Unmarshaler]. It keeps unknown fields.
func (p *Pin) UnmarshalJSON(data []byte) error {
	return wire.DecodeKeeping(data, (*plainPin)(p), &p.Unknown)
}

// MarshalJSON implements [json.Marshaler]. It includes unknown fields.
func (p Pin) MarshalJSON() ([]byte, error) { return wire.EncodeKeeping(plainPin(p), p.Unknown) }
