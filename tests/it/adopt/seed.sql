-- The schema of the FastAPI service, as its two Alembic revisions left it on PostgreSQL 15.
CREATE TYPE revoke_reason_enum AS ENUM ('USER_LOGOUT', 'REUSE_DETECTED', 'ADMIN_FORCE', 'PASSWORD_CHANGE', 'ROTATED');
CREATE TABLE alembic_version (version_num varchar(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
INSERT INTO alembic_version VALUES ('b791a564d5ca');
CREATE TABLE users (
    id bigserial PRIMARY KEY,
    email varchar(255) NOT NULL,
    hashed_password varchar(255) NOT NULL,
    full_name varchar(255),
    is_superuser boolean NOT NULL DEFAULT false,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX ix_users_email ON users (email);
CREATE TABLE authsessions (
    id bigserial PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    session_id uuid NOT NULL UNIQUE,
    user_agent varchar(255),
    ip_address inet,
    last_seen_at timestamptz,
    revoked_at timestamptz,
    revoked_reason revoke_reason_enum,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ix_auth_sessions_user ON authsessions (user_id);
CREATE INDEX ix_auth_sessions_last_seen ON authsessions (last_seen_at);
CREATE TABLE refreshtokens (
    id bigserial PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    jti uuid NOT NULL UNIQUE,
    family_id uuid NOT NULL,
    session_id uuid NOT NULL,
    token_hash varchar(64) NOT NULL UNIQUE,
    issued_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    revoked_at timestamptz,
    revoked_reason revoke_reason_enum,
    replaced_by_jti uuid
);
CREATE INDEX ix_refresh_tokens_user ON refreshtokens (user_id);
CREATE INDEX ix_refresh_tokens_family ON refreshtokens (family_id);
CREATE INDEX ix_refreshtokens_family_id ON refreshtokens (family_id);
CREATE INDEX ix_refresh_tokens_session ON refreshtokens (session_id);
CREATE INDEX ix_refreshtokens_session_id ON refreshtokens (session_id);
