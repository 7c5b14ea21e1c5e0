package postgres

import (
	"errors"
	"regexp"
	"strings"
)

// checkConnString returns an error for a connection string that pgx could parse differently than its writer meant, for
// example if the password contains an @. If pgx parsed such a string, a part of the password could become a host, a database
// or a parameter, and appear in messages or be sent to a server. The errors quote no part of the string.
func checkConnString(s string) error {
	for _, scheme := range []string{"postgres://", "postgresql://"} {
		if rest, ok := strings.CutPrefix(s, scheme); ok {
			return checkURL(rest)
		}
	}
	switch trimmed := strings.Trim(s, " \t\r\n\"'"); {
	case trimmed != s && otherScheme.MatchString(trimmed):
		return errors.New("it begins or ends with a blank or a quote; remove it")
	case otherScheme.MatchString(s):
		return errors.New("it has another scheme; " + acceptedForms)
	}
	return checkKeywords(s)
}

const acceptedForms = "write postgres://user@host:port/name?sslmode=… or key=value pairs such as host=… dbname=…"

var (
	otherScheme    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:`)
	percentEncoded = regexp.MustCompile(`^(?:[^%]|%[0-9A-Fa-f]{2})*$`)
	hostList       = regexp.MustCompile(`^(?:(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})*|\[[0-9A-Fa-f:.%a-z]*\])(?::[0-9]{0,5})?(?:,(?:(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})*|\[[0-9A-Fa-f:.%a-z]*\])(?::[0-9]{0,5})?)*$`)
)

// checkURL checks the part of a URL after the scheme: [user[:password]@][host][:port][,…][/database][?parameter=value&…].
func checkURL(rest string) error {
	if strings.ContainsFunc(rest, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("\"<>\\^`{|}#", r) }) {
		return errors.New("it has a blank or another character that a URL cannot have; in a user name or a password, write %20 for a blank, %23 for # and so on")
	}
	if !percentEncoded.MatchString(rest) {
		return errors.New("it has a % without two hexadecimal digits; in a user name or a password, write %25 for %")
	}
	authority, path, query := rest, "", ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, path = rest[:i], rest[i:]
		path, query, _ = strings.Cut(path, "?")
	}
	userinfo, hosts, ok := strings.Cut(authority, "@")
	if !ok {
		userinfo, hosts = "", authority
	}
	const encode = "in a user name or a password, write %40 for @, %2F for / and %3F for ?"
	switch {
	case strings.Contains(hosts, "@"), strings.Contains(path, "@"), strings.Contains(query, "@"):
		return errors.New("it has a second @, or an @ behind the host; " + encode)
	case !hostList.MatchString(hosts):
		return errors.New("it has no valid host and port; " + encode)
	case strings.ContainsAny(userinfo, "[]"):
		return errors.New("it has a bracket in front of the host; " + encode + ", %5B for [ and %5D for ]")
	}
	for _, parameter := range strings.Split(query, "&") {
		if name, _, ok := strings.Cut(parameter, "="); query != "" && (!ok || !knownParameters[name]) {
			return errUnknownParameter
		}
	}
	return nil
}

var errUnknownParameter = errors.New("it has a parameter that capture does not know; write a server's setting as options=-c name=value")

// checkKeywords returns an error if s does not consist of key=value pairs with known keys.
func checkKeywords(s string) error {
	return eachKeyword(s, func(name, _ string) error {
		if !knownParameters[name] {
			return errUnknownParameter
		}
		return nil
	})
}

// eachKeyword calls f with each of the key=value pairs, until f returns an error. It parses by libpq's rules: a value with
// blanks is in single quotes, and a backslash escapes a quote or a backslash in a value.
func eachKeyword(s string, f func(name, value string) error) error {
	for s = strings.TrimLeft(s, " \t\n\r\f\v"); s != ""; s = strings.TrimLeft(s, " \t\n\r\f\v") {
		name, rest, ok := strings.Cut(s, "=")
		if name = strings.TrimRight(name, " \t\n\r\f\v"); !ok || strings.ContainsAny(name, " \t\n\r\f\v") {
			return errors.New("it is neither a URL nor key=value pairs; " + acceptedForms + "; put a value with blanks into single quotes")
		}
		var value string
		if value, s, ok = cutValue(strings.TrimLeft(rest, " \t\n\r\f\v")); !ok {
			return errors.New("it has a quote that is not closed, or text right behind one")
		}
		if err := f(name, value); err != nil {
			return err
		}
	}
	return nil
}

// cutValue returns the value at the start of s and the part of s after it. ok is false if the value's quote is not closed, or
// if other text directly follows the closing quote.
func cutValue(s string) (value, rest string, ok bool) {
	quoted := strings.HasPrefix(s, "'")
	if quoted {
		s = s[1:]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case quoted && c == '\'':
			rest = s[i+1:]
			return b.String(), rest, rest == "" || strings.ContainsAny(rest[:1], " \t\n\r\f\v")
		case !quoted && strings.IndexByte(" \t\n\r\f\v", c) >= 0:
			return b.String(), s[i:], true
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), "", !quoted
}

// knownParameters are the parameters of libpq, and the server settings that URLs usually contain. The options parameter can
// set any other setting.
var knownParameters = func() map[string]bool {
	known := map[string]bool{}
	for _, name := range strings.Fields(`
		host hostaddr port dbname database user password passfile require_auth channel_binding connect_timeout client_encoding
		options application_name fallback_application_name keepalives keepalives_idle keepalives_interval keepalives_count
		tcp_user_timeout replication gssencmode gsslib gssdelegation krbsrvname krbspn sslmode sslnegotiation sslcompression sslcert
		sslkey sslpassword sslcertmode sslrootcert sslcrl sslcrldir sslsni requirepeer requiressl ssl_min_protocol_version
		ssl_max_protocol_version min_protocol_version max_protocol_version service servicefile target_session_attrs
		load_balance_hosts scram_client_key scram_server_key sslkeylogfile
		oauth_issuer oauth_client_id oauth_client_secret oauth_scope oauth_ca_file
		search_path role statement_timeout lock_timeout idle_in_transaction_session_timeout idle_session_timeout transaction_timeout
		timezone TimeZone datestyle DateStyle work_mem`) {
		known[name] = true
	}
	return known
}()
