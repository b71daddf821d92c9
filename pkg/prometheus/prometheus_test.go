package prometheus_test

import (
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/prometheus"
	"github.com/vaultmesh/remembrancer/pkg/slo"
)

var query = slo.Query{Name: "clock", Path: "api/v1/query", Form: "query=time%28%29"}

func fetch(t *testing.T, address string, o prometheus.Options, q slo.Query) slo.Response {
	t.Helper()
	c, err := prometheus.New(address, o)
	assert.NilError(t, err)
	defer c.Close()
	return c.Fetch(context.Background(), q)
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func TestAnswersAreKeptAsTheyCome(t *testing.T) {
	var asked []string
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		assert.NilError(t, err)
		asked = append(asked, r.Method+" "+r.URL.String()+" "+string(body))
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte("{ not even\njson"))
	})
	got := fetch(t, url+"/prefix/", prometheus.Options{}, query)
	assert.DeepEqual(t, got, slo.Response{Query: query, Status: 200, ContentType: "application/json", Body: []byte("{ not even\njson")})
	fetch(t, url, prometheus.Options{}, slo.Query{Path: "api/v1/status/buildinfo"})
	assert.DeepEqual(t, asked, []string{"POST /prefix/api/v1/query query=time%28%29", "GET /api/v1/status/buildinfo "})
}

func TestCredentialsAreSent(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.Header.Get("Authorization")[:6]))
	})
	assert.Equal(t, string(fetch(t, url, prometheus.Options{User: "me", Password: "secret"}, query).Body), "Basic ")
	assert.Equal(t, string(fetch(t, url, prometheus.Options{Bearer: "secret"}, query).Body), "Bearer")
}

func TestARedirectIsNotFollowed(t *testing.T) {
	reached := false
	other := serve(t, func(http.ResponseWriter, *http.Request) { reached = true })
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other+"/login?secret=1", http.StatusTemporaryRedirect)
	})
	got := fetch(t, url, prometheus.Options{Bearer: "secret"}, query)
	assert.Equal(t, got.Status, 307)
	assert.Equal(t, got.Error, "it leads to "+other+", and is not followed")
	assert.Equal(t, reached, false)
}

func TestAnAnswerHasALimitAndADeadline(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/bomb":
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write([]byte(strings.Repeat("0", slo.MaxBody+1)))
			_ = z.Close()
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("{"))
		case "/slow":
			<-r.Context().Done()
		}
	})
	got := fetch(t, url, prometheus.Options{}, slo.Query{Path: "bomb"})
	assert.Equal(t, got.Error, "the answer has more than 16777216 bytes")
	assert.Equal(t, len(got.Body), 0)
	got = fetch(t, url, prometheus.Options{}, slo.Query{Path: "cut"})
	assert.Equal(t, got.Error, "unexpected EOF")
	got = fetch(t, url, prometheus.Options{Timeout: 50 * time.Millisecond}, slo.Query{Path: "slow"})
	assert.Equal(t, got.Error, "no answer within 50ms")
	assert.Equal(t, got.Status, 0)
}

func TestAServerThatIsGoneIsSaidInTheResponse(t *testing.T) {
	s := httptest.NewServer(nil)
	s.Close()
	got := fetch(t, s.URL, prometheus.Options{}, query)
	assert.Equal(t, got.Status, 0)
	assert.Assert(t, strings.Contains(got.Error, "connection refused"), got.Error)
}

// What is fetched is evidence, which is published.
func TestAnAnswerThatRepeatsCredentialsIsNotKept(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.Header.Get("Authorization"))) })
	got := fetch(t, url, prometheus.Options{Bearer: "a-long-token"}, query)
	assert.Equal(t, len(got.Body), 0)
	assert.Equal(t, got.Error, "the answer repeats the credentials that it was asked with")
}

// keyPair makes a certificate that signs itself, and its key.
func keyPair(t *testing.T) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	assert.NilError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	assert.NilError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	assert.NilError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

func TestBothSidesShowCertificates(t *testing.T) {
	cert, key := keyPair(t)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.TLS.PeerCertificates[0].Subject.CommonName))
	}))
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(cert)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, MinVersion: tls.VersionTLS12}
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	assert.Equal(t, string(fetch(t, s.URL, prometheus.Options{CA: ca, Cert: cert, Key: key}, query).Body), "client")
	for _, o := range []prometheus.Options{{CA: ca}, {Cert: cert, Key: key}} {
		got := fetch(t, s.URL, o, query)
		assert.Equal(t, got.Status, 0)
		assert.Assert(t, got.Error != "")
	}
}

func TestWhatWouldLeakOrMeanNothingIsRefused(t *testing.T) {
	cert, key := keyPair(t)
	for _, c := range []struct {
		address string
		o       prometheus.Options
		want    string
	}{
		{"prometheus:9090", prometheus.Options{}, "want one such as"},
		{"ftp://x", prometheus.Options{}, "want one such as"},
		{"http://x?a=b", prometheus.Options{}, "want one such as"},
		{"https://me:hunter2@x", prometheus.Options{}, "want no name or password in it"},
		{"https://me:hunter2@%zz", prometheus.Options{}, "want one such as"},
		{"https://x", prometheus.Options{User: "a", Bearer: "b"}, "want one of them"},
		{"https://x", prometheus.Options{Password: "b"}, "without a name"},
		{"https://x", prometheus.Options{Bearer: "a\nb"}, "more than one line"},
		{"http://prometheus:9090", prometheus.Options{Bearer: "b"}, "in the clear, want https"},
		{"http://prometheus:9090", prometheus.Options{CA: cert}, "certificates are for https"},
		{"https://x", prometheus.Options{CA: []byte("none")}, "want PEM"},
		{"https://x", prometheus.Options{Cert: cert}, "want certificate and key"},
		{"https://x", prometheus.Options{Cert: cert, Key: cert}, "client certificate"},
	} {
		_, err := prometheus.New(c.address, c.o)
		assert.ErrorContains(t, err, c.want)
		assert.Assert(t, !strings.Contains(err.Error(), "hunter2"), err.Error())
	}
	_, err := prometheus.New("https://x", prometheus.Options{Cert: cert, Key: key})
	assert.NilError(t, err)
	_, err = prometheus.New("http://127.0.0.1:9090", prometheus.Options{Bearer: "b"})
	assert.NilError(t, err)
}
