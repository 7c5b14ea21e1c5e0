package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
)

// explainNetwork sets p's reason and hint for an error of the network or of TLS.
func explainNetwork(p *Problem, err error) {
	var (
		dns       *net.DNSError
		unknownCA x509.UnknownAuthorityError
		wrongHost x509.HostnameError
		badCert   x509.CertificateInvalidError
		alert     tls.AlertError
		record    tls.RecordHeaderError
	)
	text := strings.ToLower(err.Error())
	switch {
	case errors.As(err, &dns):
		p.Reason, p.Hint = "the host name cannot be resolved", "correct the host in --database-url or PGHOST, or repair DNS"
	case errors.As(err, &unknownCA):
		p.Reason = "this machine does not trust the authority that signed the server's certificate"
		p.Hint = "name the authority's certificate with sslrootcert=… in --database-url or PGSSLROOTCERT"
	case errors.As(err, &wrongHost):
		p.Reason, p.Hint = "the server's certificate is for another host name", "use that name in --database-url, or sslmode=verify-ca"
	case errors.As(err, &badCert):
		p.Reason, p.Hint = "the server's certificate is not valid: expired, or not for servers", "renew it on the server, and check this machine's clock"
	case errors.As(err, &alert), strings.Contains(text, "remote error: tls"):
		p.Reason = "the server refused the TLS handshake"
		p.Hint = "check sslcert and sslkey: the server may require a client certificate, or another one"
	case strings.Contains(text, "server refused tls"):
		p.Reason, p.Hint = "the server or pooler has TLS switched off", "switch it on there, or set sslmode=prefer if you trust the network"
	case errors.As(err, &record):
		p.Reason, p.Hint = "the peer does not speak TLS as Postgres does", "check the host and port in --database-url"
	case errors.Is(err, syscall.ECONNREFUSED):
		p.Reason, p.Hint = "nothing listens there", "start the server, or correct the host and port in --database-url (PGHOST, PGPORT)"
	case errors.Is(err, os.ErrNotExist) && strings.Contains(text, "unix"), errors.Is(err, syscall.ENOENT):
		p.Reason, p.Hint = "there is no server socket at that path", "start the server, or name its host with --database-url or PGHOST"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		p.Reason, p.Hint = "this machine cannot reach the host", "check the network, its firewall and the host in --database-url"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), strings.Contains(text, "unexpected eof"):
		p.Reason = "the connection was cut"
	case isTimeout(err):
		p.Reason, p.Hint = "the server did not answer in time", "check that the server runs and that no firewall blocks this machine"
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || (errors.As(err, &n) && n.Timeout())
}
