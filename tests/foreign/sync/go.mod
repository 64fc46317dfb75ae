module coterie.test/foreign/sync

go 1.22

require (
	github.com/golang-jwt/jwt/v5 v5.3.0
	github.com/google/uuid v1.6.0
)
