package lockfile

import "github.com/rbee-keeper/rbee/pkgmgr/wire"

// Values of the lock keep the fields that a newer rbee wrote.
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

// UnmarshalJSON implements [json.Unmarshaler]; fields that this rbee does not know stay.
func (w *Worker) UnmarshalJSON(data []byte) error {
	return wire.DecodeKeeping(data, (*plainWorker)(w), &w.Unknown)
}

// MarshalJSON implements [json.Marshaler].
func (w Worker) MarshalJSON() ([]byte, error) { return wire.EncodeKeeping(plainWorker(w), w.Unknown) }

// UnmarshalJSON implements [json.Unmarshaler]; fields that this rbee does not know stay.
func (s *Source) UnmarshalJSON(data []byte) error {
	return wire.DecodeKeeping(data, (*plainSource)(s), &s.Unknown)
}

// MarshalJSON implements [json.Marshaler].
func (s Source) MarshalJSON() ([]byte, error) { return wire.EncodeKeeping(plainSource(s), s.Unknown) }

// UnmarshalJSON implements [json.Unmarshaler]; fields that this rbee does not know stay.
func (p *Pin) UnmarshalJSON(data []byte) error {
	return wire.DecodeKeeping(data, (*plainPin)(p), &p.Unknown)
}

// MarshalJSON implements [json.Marshaler].
func (p Pin) MarshalJSON() ([]byte, error) { return wire.EncodeKeeping(plainPin(p), p.Unknown) }
