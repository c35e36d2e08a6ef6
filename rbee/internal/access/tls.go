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
	certificateSubject = "rbee"     // common name in certificates that rbee creates
	certificateYears   = 10         // validity of certificates that rbee creates
	clockSkew          = -time.Hour // start of the validity of a certificate relative to now, for clients with slow clocks
)

// Certificate returns the certificate in the files tls.crt and tls.key of dir, and its
// fingerprint. It creates a self-signed certificate for hosts (names and IP addresses) and
// for loopback if dir has no certificate. It replaces a certificate that has expired or
// lacks a host, but only if rbee created it.
//
// A new certificate uses the existing key, if any, but has another fingerprint.
func Certificate(dir string, hosts []string) (tls.Certificate, string, error) {
	hosts = append([]string{"localhost", "127.0.0.1", "::1"}, hosts...)
	for _, h := range hosts {
		if net.ParseIP(h) == nil && (h == "" || strings.ContainsAny(h, ":/[] ")) {
			return tls.Certificate{}, "", fmt.Errorf("cannot create a certificate: invalid host %q: want a host name or an IP address", h)
		}
	}
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	if _, err := os.Stat(certFile); err == nil {
		cert, pin, err := LoadCertificate(certFile, keyFile)
		if err != nil {
			return tls.Certificate{}, "", err
		}
		if !isMadeByRbee(cert.Leaf) || isUsable(cert.Leaf, hosts) {
			return cert, pin, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return tls.Certificate{}, "", fmt.Errorf("cannot access the certificate: %w", err)
	}
	if err := createCertificate(certFile, keyFile, hosts); err != nil {
		return tls.Certificate{}, "", fmt.Errorf("cannot create a certificate in %s: %w", dir, err)
	}
	return LoadCertificate(certFile, keyFile)
}

// LoadCertificate loads a certificate, optionally followed by its chain, and its key. Both
// files are PEM.
func LoadCertificate(certFile, keyFile string) (tls.Certificate, string, error) {
	fail := func(format string, args ...any) (tls.Certificate, string, error) {
		return tls.Certificate{}, "", fmt.Errorf(format, args...)
	}
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return fail("cannot read the certificate: %w", err)
	}
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return fail("cannot read the key of the certificate %s: %w", certFile, err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return fail("invalid certificate %s with key %s: %w", certFile, keyFile, err)
	}
	return cert, fingerprint(cert.Leaf), nil
}

// PinnedClient returns the configuration of a client that accepts only the certificate with
// this fingerprint, with any names and dates.
func PinnedClient(pin string) *tls.Config {
	return &tls.Config{
		// Without verification by an authority, the handshake still proves that the server
		// has the key. VerifyConnection is also called for resumed connections.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection compares the fingerprint
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("the server has no certificate")
			}
			if got := fingerprint(s.PeerCertificates[0]); got != pin {
				return fmt.Errorf("the server's certificate has the fingerprint %s, want %s", got, pin)
			}
			return nil
		},
	}
}

// fingerprint returns the SHA-256 fingerprint in the format of OpenSSH.
func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// isMadeByRbee reports whether rbee created the certificate.
func isMadeByRbee(cert *x509.Certificate) bool {
	return cert.Subject.CommonName == certificateSubject && cert.Issuer.CommonName == certificateSubject
}

// isUsable reports whether a certificate is valid for these hosts and has not expired. A
// certificate that is not valid yet counts as usable, because then the clock is wrong.
func isUsable(cert *x509.Certificate, hosts []string) bool {
	for _, h := range hosts {
		if cert.VerifyHostname(h) != nil {
			return false
		}
	}
	return !time.Now().After(cert.NotAfter)
}

// createCertificate writes the key, unless its file exists, and then the certificate. If it
// is interrupted in between, the next call creates a certificate for the same key.
func createCertificate(certFile, keyFile string, hosts []string) error {
	key, err := readKey(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = createKey(keyFile)
	}
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: certificateSubject},
		NotBefore:             now.Add(clockSkew),
		NotAfter:              now.AddDate(certificateYears, 0, 0),
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
		return nil, fmt.Errorf("invalid key %s: want a PEM file", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("invalid key %s: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("invalid key %s: it cannot sign", path)
	}
	return signer, nil
}

func createKey(path string) (crypto.Signer, error) {
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
