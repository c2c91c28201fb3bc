// Package deploytest checks the files of examples/gameserver/deploy with the types of those who
// read them, and runs the game server as they would. It is a module of its own, so that a copy
// of the game server does not need Kubernetes.
package deploytest

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	compose "github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

const deploy = "../deploy"

// manifests are what kubernetes.yaml holds.
type manifests struct {
	config     corev1.ConfigMap
	deployment appsv1.Deployment
	budget     policyv1.PodDisruptionBudget
	service    corev1.Service
	ingress    networkingv1.Ingress
}

// readManifests decodes kubernetes.yaml strictly: a field that Kubernetes does not know fails.
func readManifests(t *testing.T) *manifests {
	text, err := os.ReadFile(filepath.Join(deploy, "kubernetes.yaml"))
	require.NoError(t, err)
	m := new(manifests)
	into := map[string]any{
		"v1 ConfigMap": &m.config, "apps/v1 Deployment": &m.deployment, "policy/v1 PodDisruptionBudget": &m.budget,
		"v1 Service": &m.service, "networking.k8s.io/v1 Ingress": &m.ingress,
	}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var kind struct{ APIVersion, Kind string }
		require.NoError(t, yaml.Unmarshal([]byte(document), &kind))
		name := kind.APIVersion + " " + kind.Kind
		require.Contains(t, into, name)
		require.NoError(t, yaml.UnmarshalStrict([]byte(document), into[name]), name)
		delete(into, name)
	}
	require.Empty(t, into, "missing")
	return m
}

func TestManifestsFitTogether(t *testing.T) {
	t.Parallel()
	m := readManifests(t)
	pod := m.deployment.Spec.Template
	require.Len(t, pod.Spec.Containers, 1)
	container := pod.Spec.Containers[0]

	for name, selector := range map[string]map[string]string{
		"Deployment": m.deployment.Spec.Selector.MatchLabels, "PodDisruptionBudget": m.budget.Spec.Selector.MatchLabels, "Service": m.service.Spec.Selector,
	} {
		require.NotEmpty(t, selector)
		for key, value := range selector {
			require.Equal(t, value, pod.Labels[key], name)
		}
	}
	require.Equal(t, container.Ports[0].Name, m.service.Spec.Ports[0].TargetPort.String())
	require.Equal(t, m.config.Data["MIDAS_LISTEN"], fmt.Sprint(":", container.Ports[0].ContainerPort))
	path := m.ingress.Spec.Rules[0].HTTP.Paths[0]
	require.Equal(t, m.config.Data["MIDAS_DELIVERY_PATH"], path.Path)
	require.Equal(t, networkingv1.PathTypeExact, *path.PathType)
	require.Equal(t, m.service.Name, path.Backend.Service.Name)
	require.Equal(t, m.service.Spec.Ports[0].Name, path.Backend.Service.Port.Name)

	// One pod may be away for maintenance, and never all.
	require.Greater(t, *m.deployment.Spec.Replicas, m.budget.Spec.MinAvailable.IntVal)
	require.Zero(t, m.deployment.Spec.Strategy.RollingUpdate.MaxUnavailable.IntVal)

	// The stop: preStop, then 10 s for what runs (shutdownTime in main.go), then SIGKILL.
	require.Greater(t, *pod.Spec.TerminationGracePeriodSeconds, container.Lifecycle.PreStop.Sleep.Seconds+10)

	require.NotEqual(t, container.LivenessProbe.HTTPGet.Path, container.ReadinessProbe.HTTPGet.Path)
	require.True(t, *pod.Spec.SecurityContext.RunAsNonRoot)
	require.False(t, *container.SecurityContext.AllowPrivilegeEscalation)
	require.True(t, *container.SecurityContext.ReadOnlyRootFilesystem)

	text, err := os.ReadFile(filepath.Join(deploy, "kubernetes.yaml"))
	require.NoError(t, err)
	require.NotContains(t, string(text), "kind: Secret")
}

// The server that the Dockerfile builds takes the environment of the manifests, and answers
// their probes.
func TestTheServerRunsAsDeployed(t *testing.T) {
	t.Parallel()
	binary := build(t)
	m := readManifests(t)
	container := m.deployment.Spec.Template.Spec.Containers[0]
	address := freeAddress(t)
	env := []string{"MIDAS_APP_KEY=pay-key", "MIDAS_DATABASE_URL=" + filepath.Join(t.TempDir(), "game.db")} // the Secret
	for name, value := range m.config.Data {
		if name == "MIDAS_LISTEN" {
			value = address
		}
		env = append(env, name+"="+value)
	}

	var log bytes.Buffer
	server := exec.Command(binary)
	server.Env, server.Stderr = env, &log
	require.NoError(t, server.Start())
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	defer server.Process.Kill()
	for _, probe := range []*corev1.Probe{container.StartupProbe, container.LivenessProbe, container.ReadinessProbe} {
		require.Equal(t, "http", probe.HTTPGet.Port.String())
		require.Eventually(t, func() bool {
			resp, err := http.Get("http://" + address + probe.HTTPGet.Path)
			if err != nil {
				return false
			}
			resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		}, time.Minute, 50*time.Millisecond, probe.HTTPGet.Path)
	}
	require.NoError(t, server.Process.Signal(syscall.SIGTERM))
	require.NoError(t, <-ended)
	require.Contains(t, log.String(), `"msg":"stopped"`)
}

func TestComposeFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(deploy, "compose.yaml")
	project, err := loader.LoadWithContext(context.Background(), compose.ConfigDetails{
		WorkingDir:  deploy,
		ConfigFiles: []compose.ConfigFile{{Filename: file}},
		Environment: map[string]string{"MIDAS_APP_ID": "1450000000", "MIDAS_APP_KEY": "pay-key"},
	}, func(o *loader.Options) { o.SetProjectName("gameserver", true) })
	require.NoError(t, err)
	server, err := project.GetService("gameserver")
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(server.Build.Context, server.Build.Dockerfile))
	require.FileExists(t, filepath.Join(server.Build.Context, *server.Build.Args["DIR"], "main.go"))
	require.Equal(t, "sandbox", *server.Environment["MIDAS_GATEWAY"])
	require.GreaterOrEqual(t, time.Duration(*server.StopGracePeriod), 12*time.Second)
	require.Contains(t, server.DependsOn, "postgres")
	for _, port := range server.Ports {
		require.Equal(t, "127.0.0.1", port.HostIP)
	}
}

func TestDockerfile(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(deploy, "Dockerfile"))
	require.NoError(t, err)
	parsed, err := parser.Parse(bytes.NewReader(text))
	require.NoError(t, err)
	require.Empty(t, parsed.Warnings)
	stages, _, err := instructions.Parse(parsed.AST, nil)
	require.NoError(t, err)
	require.Len(t, stages, 2)
	require.True(t, strings.HasSuffix(stages[1].BaseName, ":nonroot"), stages[1].BaseName)
	for _, command := range stages[1].Commands {
		require.NotEqual(t, "run", command.Name(), "there is no shell in the last stage")
	}
}

// Every variable that a file of deploy names is one that the server knows.
func TestVariablesAreKnown(t *testing.T) {
	t.Parallel()
	help, err := exec.Command(build(t), "-h").CombinedOutput()
	require.NoError(t, err)
	files, err := filepath.Glob(filepath.Join(deploy, "*"))
	require.NoError(t, err)
	variable := regexp.MustCompile(`MIDAS_[A-Z_]+`)
	known := variable.FindAllString(string(help), -1)
	n := 0
	for _, file := range files {
		if info, err := os.Stat(file); err != nil || info.IsDir() {
			continue
		}
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, name := range variable.FindAllString(string(text), -1) {
			require.True(t, slices.Contains(known, name), "%s: %s", file, name)
			n++
		}
	}
	require.Greater(t, n, 15)
}

// A copy of the game server outside this repository, made as its README says, builds. The
// module proxy here holds this checkout as a release.
func TestACopyBuilds(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	_, commands, found := strings.Cut(string(readme), "```sh\ncp -r ")
	require.True(t, found, "README.md does not say how to copy it")
	commands, _, _ = strings.Cut(commands, "```")

	folder := t.TempDir()
	require.NoError(t, os.Symlink(repository(t), filepath.Join(folder, "midas")))
	// A cache of its own, for the release that is none. What is needed else comes from the usual
	// cache, which has the layout of a proxy.
	cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	require.NoError(t, err)
	cmd := exec.Command("sh", "-ec", "cp -r "+commands)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "GOPROXY="+release(t)+",file://"+filepath.Join(strings.TrimSpace(string(cache)), "cache", "download"),
		"GOSUMDB=off", "CGO_ENABLED=0", "GOFLAGS=-modcacherw -trimpath", "GOMODCACHE="+filepath.Join(folder, "mod"))
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, string(output))
	require.FileExists(t, filepath.Join(folder, "shop", "gameserver"))
}

// release returns a module proxy that has this checkout as v0.99.0.
func release(t *testing.T) string {
	t.Helper()
	proxy := t.TempDir()
	versions := filepath.Join(proxy, "github.com/midas-go/midas/@v")
	require.NoError(t, os.MkdirAll(versions, 0o755))
	write := func(name string, text []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(versions, name), text, 0o644))
	}
	root := repository(t)
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	require.NoError(t, err)
	write("list", []byte("v0.99.0\n"))
	write("v0.99.0.mod", mod)
	write("v0.99.0.info", []byte(`{"Version":"v0.99.0","Time":"2026-01-01T00:00:00Z"}`))
	files, err := exec.Command("git", "-C", root, "ls-files", "--", "*.go", "go.mod", "LICENSE", "midassql/schema", "cmd/midas/pages", "cmd/midas/testdata").Output()
	require.NoError(t, err)
	modules, err := exec.Command("git", "-C", root, "ls-files", "--", "*/go.mod").Output()
	require.NoError(t, err)
	write("v0.99.0.zip", zipped(t, root, "github.com/midas-go/midas@v0.99.0/", strings.Fields(string(files)), strings.Fields(string(modules))))
	return "file://" + proxy
}

func repository(t *testing.T) string {
	root, err := filepath.Abs("../../..")
	require.NoError(t, err)
	return root
}

// build builds the server with the command of the Dockerfile, and fails if it needs a libc,
// which the image does not have.
func build(t *testing.T) string {
	t.Helper()
	binary, err := built()
	require.NoError(t, err)
	file, err := elf.Open(binary)
	require.NoError(t, err)
	defer file.Close()
	for _, program := range file.Progs {
		require.NotEqual(t, elf.PT_INTERP, program.Type, "not static")
	}
	return binary
}

var folder string // of all tests

func TestMain(m *testing.M) {
	var err error
	if folder, err = os.MkdirTemp("", "deploytest"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(folder)
	os.Exit(code)
}

var built = sync.OnceValues(func() (string, error) {
	text, err := os.ReadFile(filepath.Join(deploy, "Dockerfile"))
	if err != nil {
		return "", err
	}
	command := regexp.MustCompile(`(?m)^ +(CGO_ENABLED=0 go build .*) -o /gameserver \.$`).FindSubmatch(text)
	if command == nil {
		return "", errors.New("the Dockerfile builds in another way")
	}
	binary := filepath.Join(folder, "gameserver")
	cmd := exec.Command("sh", "-c", string(command[1])+" -o "+binary+" .")
	cmd.Dir = ".."
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, output)
	}
	return binary, nil
})

func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// docs/deployment.md has people write sandbox.env and live.env beside the code: neither an image nor the
// repository gets them, here and in a copy of the folder.
func TestKeysStayOutOfImagesAndTheRepository(t *testing.T) {
	t.Parallel()
	for _, context := range []string{"../../..", ".."} {
		file, err := os.Open(filepath.Join(context, ".dockerignore"))
		require.NoError(t, err)
		defer file.Close()
		patterns, err := ignorefile.ReadAll(file)
		require.NoError(t, err)
		ignored, err := patternmatcher.New(patterns)
		require.NoError(t, err)
		for _, key := range []string{"live.env", "sandbox.env", "examples/gameserver/live.env", "pay.key", "deploy/midas.key", "gameserver.db", "gameserver.db-wal"} {
			out, err := ignored.MatchesOrParentMatches(key)
			require.NoError(t, err)
			require.True(t, out, "%s is in the context %s", key, context)
		}
		for _, source := range []string{"main.go", "go.mod", "examples/gameserver/shop.go", "midassql/schema/sqlite.sql", "environment.go"} {
			out, err := ignored.MatchesOrParentMatches(source)
			require.NoError(t, err)
			require.False(t, out, "%s is missing in the context %s", source, context)
		}
	}
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("SKIPPED, NOT TESTED: git is not installed")
	}
	if exec.Command(git, "rev-parse").Run() != nil {
		t.Skip("SKIPPED, NOT TESTED: this is no repository")
	}
	for _, key := range []string{"../live.env", "../../../sandbox.env", "../../../pay.key"} {
		require.NoError(t, exec.Command(git, "check-ignore", "-q", key).Run(), key)
	}
}
