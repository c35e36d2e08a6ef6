package access

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
)

const (
	madeBy     = "rbee"     // the subject of certificates that are made here
	validYears = 10         // of such a certificate
	backdating = -time.Hour // for clocks that are late
)

// Certificate is the certificate in dir, tls.crt with its key tls.key, and its
// fingerprint. If there is none, or rbee made it and it has expired or lacks a
// host, it is made: self-signed, for the hosts (names and IP addresses) and for
// this machine's loopback. A certificate that somebody else put there is used as it
// is.
//
// A new certificate has the old key, if there is one, but another fingerprint.
func Certificate(dir string, hosts []string) (tls.Certificate, string, error) {
	hosts = append([]string{"localhost", "127.0.0.1", "::1"}, hosts...)
	for _, h := range hosts {
		if net.ParseIP(h) == nil && (h == "" || strings.ContainsAny(h, ":/[] ")) {
			return tls.Certificate{}, "", fmt.Errorf("making a certificate: %q is neither a host's name nor an IP address", h)
		}
	}
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	if _, err := os.Stat(certFile); err == nil {
		cert, pin, err := LoadCertificate(certFile, keyFile)
		if err != nil {
			return tls.Certificate{}, "", err
		}
		if !madeHere(cert.Leaf) || fits(cert.Leaf, hosts) {
			return cert, pin, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return tls.Certificate{}, "", fmt.Errorf("looking for a certificate: %w", err)
	}
	if err := makeCertificate(certFile, keyFile, hosts); err != nil {
		return tls.Certificate{}, "", fmt.Errorf("making a certificate in %s: %w", dir, err)
	}
	return LoadCertificate(certFile, keyFile)
}

// LoadCertificate reads a certificate, with those of its authorities if they
// follow it, and its key. Both files are PEM.
func LoadCertificate(certFile, keyFile string) (tls.Certificate, string, error) {
	fail := func(format string, args ...any) (tls.Certificate, string, error) {
		return tls.Certificate{}, "", fmt.Errorf(format, args...)
	}
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return fail("reading the certificate: %w", err)
	}
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return fail("reading the key of the certificate %s: %w", certFile, err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return fail("the certificate %s with the key %s: %w", certFile, keyFile, err)
	}
	return cert, fingerprint(cert.Leaf), nil
}

// PinnedClient is how a client connects that takes the certificate with this
// fingerprint, whatever names and dates are in it, and no other.
func PinnedClient(pin string) *tls.Config {
	return &tls.Config{
		// No authority is asked. That the server has the key is still verified, and
		// VerifyConnection is called for resumed connections too.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection compares the fingerprint
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("the server shows no certificate")
			}
			if got := fingerprint(s.PeerCertificates[0]); got != pin {
				return fmt.Errorf("the server's certificate has the fingerprint %s, want %s", got, pin)
			}
			return nil
		},
	}
}

// fingerprint is how OpenSSH would write it.
func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

func madeHere(cert *x509.Certificate) bool {
	return cert.Subject.CommonName == madeBy && cert.Issuer.CommonName == madeBy
}

// fits tells if a certificate can serve these hosts. One that is not valid yet can:
// it is the clock that is wrong.
func fits(cert *x509.Certificate, hosts []string) bool {
	for _, h := range hosts {
		if cert.VerifyHostname(h) != nil {
			return false
		}
	}
	return !time.Now().After(cert.NotAfter)
}

// makeCertificate writes the key, if there is none, and then the certificate. So
// the two belong together, wherever it is cut off.
func makeCertificate(certFile, keyFile string, hosts []string) error {
	key, err := readKey(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(keyFile)
	}
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: madeBy},
		NotBefore:             now.Add(backdating),
		NotAfter:              now.AddDate(validYears, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	return atomicfile.WriteData(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

func readKey(path string) (crypto.Signer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s is no key in PEM", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the key %s: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("the key %s cannot sign", path)
	}
	return signer, nil
}

func makeKey(path string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, atomicfile.WriteData(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}
