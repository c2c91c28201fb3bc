module github.com/midas-go/midas/examples/internal/servers

go 1.26.0

replace github.com/midas-go/midas => ../../..

require (
	github.com/midas-go/midas v0.0.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/google/go-querystring v1.2.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
)
