// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// compose is docker-compose.yml as far as a machine without a container engine can check it.
type compose struct {
	Services map[string]struct {
		Image       string
		Build       string
		Profiles    []string
		Command     []string
		Environment map[string]string
		DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
		Healthcheck *struct {
			Test              []string
			Interval, Timeout string
			StartPeriod       string `yaml:"start_period"`
			Retries           int
		}
		Ports   []string
		Volumes []string
		Configs []string
		Restart string
		Grace   string `yaml:"stop_grace_period"`
	}
	Volumes map[string]any
	Configs map[string]struct{ Content string }
}

// byDefault replaces ${NAME:-value} by its value, as in an environment without settings.
func byDefault(s string) string {
	return regexp.MustCompile(`\$\{[A-Z_]+:-([^}]*)\}`).ReplaceAllString(s, "$1")
}

// A port that is open to the network gives everybody an API without tokens; an image that moves
// breaks on a day when nobody changed anything.
func TestComposeFile(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../docker-compose.yml")
	require.NoError(t, err)
	dec := yaml.NewDecoder(strings.NewReader(byDefault(string(raw))))
	dec.KnownFields(true)
	var c compose
	require.NoError(t, dec.Decode(&c))
	require.Contains(t, c.Services, "cicada")
	require.Contains(t, c.Services, "object-store")
	require.Contains(t, c.Services, "versitygw")
	pinned := regexp.MustCompile(`^[a-z0-9./-]+:[A-Za-z0-9._-]*[0-9][A-Za-z0-9._-]*(@sha256:[0-9a-f]{64})?$`)
	for name, s := range c.Services {
		require.NotEmpty(t, s.Ports, name)
		for _, port := range s.Ports {
			require.Regexp(t, `^127\.0\.0\.1:\d+:\d+$`, port, name)
		}
		require.NotNil(t, s.Healthcheck, name)
		require.NotEmpty(t, s.Volumes, name)
		for _, v := range s.Volumes {
			volume, _, _ := strings.Cut(v, ":")
			require.Contains(t, c.Volumes, volume, name)
		}
		for need := range s.DependsOn {
			require.Contains(t, c.Services, need)
			require.Empty(t, c.Services[need].Profiles, "%s does not start by itself", need)
		}
		for _, file := range s.Configs {
			require.Contains(t, c.Configs, file, name)
		}
		if s.Build != "" {
			require.FileExists(t, filepath.Join("..", s.Build, "Dockerfile"))
			continue
		}
		require.Regexp(t, pinned, s.Image, name)
		require.NotContains(t, s.Image, "latest", name)
	}
	cicada := c.Services["cicada"]
	require.Empty(t, cicada.Profiles)
	require.Empty(t, c.Services["object-store"].Profiles, "one command starts both")
	require.Equal(t, []string{"versitygw"}, c.Services["versitygw"].Profiles)
	require.Contains(t, cicada.Environment["CICADA_BUCKET"], "http://object-store:9000")
	require.Contains(t, cicada.Environment["CICADA_BUCKET"], "create_bucket=true")

	// What the daemon would be started with is accepted, but for the names of that network.
	env := []string{"CICADA_DATA_DIR=" + t.TempDir()}
	for k, v := range cicada.Environment {
		env = append(env, k+"="+v)
	}
	r := cliRun{env: env}.run(t, append([]string{"config", "print"}, cicada.Command[1:]...)...)
	require.Equal(t, 0, r.code, "%s", r)
	require.Contains(t, r.out, "s3://cicada/main")
	require.Equal(t, "serve", cicada.Command[0])

	// Each profile of a broker has a file for the daemon, which names the broker's service.
	require.Len(t, cicada.Configs, len(c.Configs))
	for _, kind := range []string{"kafka", "nats", "rocketmq"} {
		text := c.Configs[kind+".yaml"].Content
		require.Contains(t, text, "kind: "+kind)
		file := filepath.Join(t.TempDir(), kind+".yaml")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		r := cliRun{}.run(t, "config", "check", file)
		require.Equal(t, 0, r.code, "%s", r)
		address := regexp.MustCompile(`"(?:nats://)?([a-z-]+):\d+"`).FindStringSubmatch(text)
		require.Len(t, address, 2, text)
		require.Equal(t, []string{kind}, c.Services[address[1]].Profiles)
	}
}

// The image is built nowhere here, but the command that builds the program in it is run: flags and
// variables that do not exist would be found by users.
func TestDockerfileBuilds(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../Dockerfile")
	require.NoError(t, err)
	text := strings.ReplaceAll(string(raw), "\\\n", " ")
	line := regexp.MustCompile(`RUN (CGO_ENABLED=0 go build .*? -o) /out/cicada (\S+) &&`).
		FindStringSubmatch(text)
	require.Len(t, line, 3, "the line that builds")
	out := filepath.Join(t.TempDir(), "cicada")
	cmd := exec.Command("sh", "-c", line[1]+" "+out+" "+line[2])
	cmd.Dir, cmd.Env = "..", append(cleanEnv(), "VERSION=v9.8.7")
	built, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", built)
	version, err := exec.Command(out, "version").CombinedOutput()
	require.NoError(t, err, "%s", version)
	require.Contains(t, string(version), "v9.8.7")
	_, err = os.Stat("../go.sum")
	require.NoError(t, err)
	for _, w := range []string{"USER 65532:65532", `ENTRYPOINT ["/cicada"]`, `CMD ["serve"]`} {
		require.Contains(t, text, w)
	}
}
