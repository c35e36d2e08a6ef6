package archive

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// engineTar returns a tar archive that resembles the release of an engine: a few large
// libraries, which compress to about half, and many small files; about 300 MiB in total.
func engineTar(b *testing.B) []byte {
	b.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	chunks := make([][]byte, 4096)
	for i := range chunks {
		chunks[i] = make([]byte, 2+random.IntN(14))
		for j := range chunks[i] {
			chunks[i][j] = byte(random.Uint32())
		}
	}
	var out bytes.Buffer
	t := tar.NewWriter(&out)
	file := func(name string, size int) {
		var content bytes.Buffer
		for content.Len() < size {
			content.Write(chunks[int(random.ExpFloat64()*400)%len(chunks)])
			if random.IntN(3) == 0 {
				content.WriteByte(byte(random.Uint32()))
			}
		}
		err := t.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(size)})
		if err == nil {
			_, err = t.Write(content.Bytes()[:size])
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	for i := range 12 {
		file(fmt.Sprintf("lib/lib%d.so", i), 23<<20)
	}
	for i := range 3000 {
		file(fmt.Sprintf("share/%d/%d.py", i/100, i), 200+random.IntN(16_000))
	}
	if err := t.Close(); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

// BenchmarkUnpack compares Unpack with tar on the same archive. Unlike tar, Unpack also
// computes the checksum of each file. RBEE_BENCH_DIR sets the parent directory of the
// temporary files.
func BenchmarkUnpack(b *testing.B) {
	if _, err := exec.LookPath("tar"); err != nil {
		b.Skip(err)
	}
	plain := engineTar(b)
	for _, c := range []struct {
		format wire.Format
		flag   string
		pack   func(io.Writer) (io.WriteCloser, error)
	}{
		{wire.FormatTarGz, "--gzip", func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }},
		{wire.FormatTarZst, "--zstd", func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }},
	} {
		b.Run(string(c.format), func(b *testing.B) {
			dir, err := os.MkdirTemp(os.Getenv("RBEE_BENCH_DIR"), "rbee-unpack-")
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = os.RemoveAll(dir) })
			archive := filepath.Join(dir, "archive")
			f, err := os.Create(archive)
			if err != nil {
				b.Fatal(err)
			}
			w, err := c.pack(f)
			if err == nil {
				_, err = w.Write(plain)
			}
			if err == nil {
				err = w.Close()
			}
			if err != nil {
				b.Fatal(err)
			}
			f.Close()
			var rbee, system time.Duration
			n := 0
			measure := func(total *time.Duration, unpack func(target string) error) {
				target := filepath.Join(dir, "target")
				if err := os.Mkdir(target, 0o755); err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				if err := unpack(target); err != nil {
					b.Fatal(err)
				}
				*total += time.Since(start)
				if err := os.RemoveAll(target); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				n++
				measure(&rbee, func(target string) error {
					_, err := Unpack(b.Context(), archive, c.format, 0, target, 1<<40)
					return err
				})
				measure(&system, func(target string) error {
					out, err := exec.CommandContext(b.Context(), "tar", "--extract", c.flag, "--file", archive, "--directory", target).CombinedOutput()
					if err != nil {
						err = fmt.Errorf("%w: %s", err, out)
					}
					return err
				})
			}
			mb := float64(len(plain)) * float64(n) / 1e6
			b.ReportMetric(mb/rbee.Seconds(), "rbee-MB/s")
			b.ReportMetric(mb/system.Seconds(), "tar-MB/s")
			b.ReportMetric(system.Seconds()/rbee.Seconds(), "ratio")
		})
	}
}
