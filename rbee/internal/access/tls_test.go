package access_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/rbee/internal/access"
)

// certificate creates or loads the certificate in dir.
func certificate(t testing.TB, dir string, hosts ...string) (tls.Certificate, string) {
	t.Helper()
	cert, pin, err := access.Certificate(dir, hosts)
	if err != nil {
		t.Fatal(err)
	}
	return cert, pin
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new")
	cert, first := certificate(t, dir, "queen.example.com", "192.0.2.7", "2001:db8::1")
	for _, host := range []string{"queen.example.com", "192.0.2.7", "2001:db8::1", "localhost", "127.0.0.1", "::1"} {
		if err := cert.Leaf.VerifyHostname(host); err != nil {
			t.Errorf("VerifyHostname(%q) = %v, want nil", host, err)
		}
	}
	if years := time.Until(cert.Leaf.NotAfter).Hours() / 24 / 365; years < 9.9 || years > 10.1 {
		t.Errorf("the certificate is valid for %v years, want 10", years)
	}
	if key, ok := cert.PrivateKey.(*ecdsa.PrivateKey); !ok || key.Curve != elliptic.P256() {
		t.Errorf("private key type = %T, want *ecdsa.PrivateKey on P-256", cert.PrivateKey)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "queen.example.com"}); err != nil {
		t.Errorf("Verify() with the certificate as root = %v, want nil", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "tls.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("Stat(tls.key) = %v, %v, want mode 600", info, err)
	}
	if len(first) != len("SHA256:")+43 || !strings.HasPrefix(first, "SHA256:") {
		t.Errorf("fingerprint = %q, want SHA256: and 43 characters", first)
	}

	for _, test := range []struct {
		name  string
		hosts []string
		same  bool
	}{
		{"same hosts", []string{"queen.example.com", "192.0.2.7", "2001:db8::1"}, true},
		{"fewer hosts", []string{"QUEEN.example.com"}, true},
		{"other name", []string{"queen.example.org"}, false},
		{"other address", []string{"192.0.2.8"}, false},
	} {
		copied := filepath.Join(t.TempDir(), "tls")
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		next, pin := certificate(t, copied, test.hosts...)
		if (pin == first) != test.same {
			t.Errorf("%s: fingerprint %s after %s, want the same: %t", test.name, pin, first, test.same)
		}
		if !next.PrivateKey.(*ecdsa.PrivateKey).Equal(cert.PrivateKey) {
			t.Errorf("%s: the private key changed, want it kept", test.name)
		}
		if _, third := certificate(t, copied, test.hosts...); third != pin {
			t.Errorf("%s: second fingerprint %s after %s, want the same", test.name, third, pin)
		}
	}

	// An interruption between the two writes leaves a key without a certificate.
	if err := os.Remove(filepath.Join(dir, "tls.crt")); err != nil {
		t.Fatal(err)
	}
	next, pin := certificate(t, dir)
	if sameKey := next.PrivateKey.(*ecdsa.PrivateKey).Equal(cert.PrivateKey); pin == first || !sameKey {
		t.Errorf("Certificate() without tls.crt: fingerprint %s after %s, same key = %t, want a new certificate with the same key", pin, first, sameKey)
	}
}

func TestCertificateExpires(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		_, first := certificate(t, dir)
		waittest.Advance(9 * 365 * 24 * time.Hour)
		if _, later := certificate(t, dir); later != first {
			t.Error("Certificate() created another certificate after 9 years, want the same")
		}
		waittest.Advance(2 * 365 * 24 * time.Hour)
		cert, later := certificate(t, dir)
		if later == first || time.Now().After(cert.Leaf.NotAfter) {
			t.Errorf("Certificate() after 11 years is valid until %v, want a new certificate", cert.Leaf.NotAfter)
		}
	})
}

// writeForeignCertificate writes an expired certificate that rbee did not create to dir.
func writeForeignCertificate(t testing.TB, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "me"}, DNSNames: []string{"a"}, NotAfter: time.Now().Add(-time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: der}, "tls.key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestForeignCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeForeignCertificate(t, dir)
	cert, pin := certificate(t, dir, "b")
	if cert.Leaf.Subject.CommonName != "me" {
		t.Errorf("Certificate() has common name %q, want the foreign certificate kept", cert.Leaf.Subject.CommonName)
	}
	loaded, same, err := access.LoadCertificate(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil || same != pin || !loaded.Leaf.Equal(cert.Leaf) {
		t.Errorf("LoadCertificate() = fingerprint %s, %v, want %s", same, err, pin)
	}
}

func TestCertificateErrors(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"", "a:80", "https://a", "a b", "[::1]"} {
		if _, _, err := access.Certificate(t.TempDir(), []string{host}); err == nil {
			t.Errorf("Certificate() for host %q = nil, want an error", host)
		}
	}
	overwrite := func(name, content string) func(dir string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600) }
	}
	for _, test := range []struct {
		name   string
		change func(dir string) error
		want   string
	}{
		{"no key", func(dir string) error { return os.Remove(filepath.Join(dir, "tls.key")) }, "cannot read the key of the certificate"},
		{"broken certificate", overwrite("tls.crt", "x"), "tls.crt"},
		{"broken key", overwrite("tls.key", "x"), "tls.key"},
		{"key of another certificate", func(dir string) error {
			other := t.TempDir()
			certificate(t, other)
			return os.Rename(filepath.Join(other, "tls.key"), filepath.Join(dir, "tls.key"))
		}, "does not match"},
	} {
		dir := t.TempDir()
		certificate(t, dir)
		if err := test.change(dir); err != nil {
			t.Fatal(err)
		}
		_, _, createErr := access.Certificate(dir, nil)
		_, _, loadErr := access.LoadCertificate(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
		for call, err := range map[string]error{"Certificate": createErr, "LoadCertificate": loadErr} {
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%s: %s() = %v, want an error with %q and the path", test.name, call, err, test.want)
			}
		}
	}
	dir := t.TempDir()
	if err := overwrite("tls.key", "x")(dir); err != nil {
		t.Fatal(err)
	}
	if _, _, err := access.Certificate(dir, nil); err == nil || !strings.Contains(err.Error(), "want a PEM file") {
		t.Errorf("Certificate() with an invalid key = %v, want an error", err)
	}
	if _, _, err := access.LoadCertificate(filepath.Join(dir, "none"), ""); err == nil || !strings.Contains(err.Error(), "cannot read the certificate") {
		t.Errorf("LoadCertificate() of a missing file = %v, want an error", err)
	}
}

func TestPinnedClient(t *testing.T) {
	t.Parallel()
	cert, pin := certificate(t, t.TempDir())
	_, other := certificate(t, t.TempDir())
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // failed handshakes are expected
	s.StartTLS()
	t.Cleanup(s.Close)
	cache := tls.NewLRUClientSessionCache(8)
	get := func(pin string) (resumed bool, err error) {
		config := access.PinnedClient(pin)
		config.ClientSessionCache = cache
		verify := config.VerifyConnection
		config.VerifyConnection = func(s tls.ConnectionState) error {
			resumed = s.DidResume
			return verify(s)
		}
		transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return resumed, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resumed, err
	}
	if resumed, err := get(pin); err != nil || resumed {
		t.Fatalf("first connection: resumed = %t, %v, want false and no error", resumed, err)
	}
	if resumed, err := get(pin); err != nil || !resumed {
		t.Fatalf("second connection: resumed = %t, %v, want true and no error", resumed, err)
	}
	if resumed, err := get(other); err == nil || !strings.Contains(err.Error(), "has the fingerprint "+pin) || !resumed {
		t.Errorf("resumed connection with another pin: resumed = %t, %v, want a fingerprint error", resumed, err)
	}
	for _, wrong := range []string{other, "", pin[:20], strings.ToLower(pin)} {
		if _, err := get(wrong); err == nil || !strings.Contains(err.Error(), "has the fingerprint "+pin) {
			t.Errorf("request with pin %q = %v, want a fingerprint error", wrong, err)
		}
	}
}
