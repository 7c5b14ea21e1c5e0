package postgres

import (
	"context"
	"fmt"
)

// provider is a managed service with its own way to grant rights and to change settings. "" is an ordinary server.
type provider string

const (
	azure    provider = "Azure Database for PostgreSQL"
	amazon   provider = "Amazon RDS"
	cloudSQL provider = "Google Cloud SQL"
)

// findProvider identifies the managed service by the role that the service creates for its administrators.
func findProvider(ctx context.Context, q Querier) (provider, error) {
	var found provider
	err := Pinned(q).QueryRow(ctx, `SELECT COALESCE((
		SELECT CASE rolname WHEN 'azure_pg_admin' THEN $1::text WHEN 'rds_superuser' THEN $2::text ELSE $3::text END
		FROM pg_catalog.pg_roles WHERE rolname IN ('azure_pg_admin', 'rds_superuser', 'cloudsqlsuperuser') LIMIT 1), '')`,
		string(azure), string(amazon), string(cloudSQL)).Scan(&found)
	if err != nil {
		return "", Explain(fmt.Errorf("identify the managed service: %w", err))
	}
	return found, nil
}

// grantReplication returns the statement that gives a role the right to replicate.
func (p provider) grantReplication(role string) string {
	if p == amazon {
		return "GRANT rds_replication TO " + QuoteIdentifier(role)
	}
	return "ALTER ROLE " + QuoteIdentifier(role) + " REPLICATION"
}

// changeSetting returns instructions to change a server setting with this provider. If restart is true, the setting takes
// effect only when the server restarts.
func (p provider) changeSetting(name, value string, restart bool) string {
	var how, then string
	switch p {
	case azure:
		how = fmt.Sprintf("az postgres flexible-server parameter set --resource-group … --server-name … --name %s --value %s", name, value)
		then = " # and restart the server"
	case amazon:
		if name == "wal_level" {
			name, value = "rds.logical_replication", "1"
		}
		how, then = fmt.Sprintf("set %s = %s in the instance's parameter group", name, value), ", and reboot it"
	case cloudSQL:
		if name == "wal_level" {
			name, value = "cloudsql.logical_decoding", "on"
		}
		// This option replaces all flags that were set before, so the instructions also mention the flags to keep.
		how = fmt.Sprintf("gcloud sql instances patch … --database-flags=%s=%s,…", name, value)
		then = " # also list the flags to keep; restarts the instance"
	default:
		how, then = fmt.Sprintf("ALTER SYSTEM SET %s = '%s';", name, value), " -- and restart the server"
		if !restart {
			how += " SELECT pg_reload_conf();"
		}
	}
	if !restart && p != cloudSQL {
		return how
	}
	return how + then
}
