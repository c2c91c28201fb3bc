package failovertest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A disk is a file system of its own, in a file. So it can be full, and stand still, and nobody else notices.
type disk struct{ folder string }

const diskSize = 1 << 30 // the file is sparse: it takes as much as is written

// newDisk mounts a disk at a folder, which it makes. It returns nil where that is not allowed, as in most containers
// and for all but root: the log says so, and it is no failure.
func newDisk(t *testing.T, a *account, folder string) *disk {
	t.Helper()
	require.NoError(t, os.Mkdir(folder, 0o700))
	image := folder + ".disk"
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, diskSize))
	for _, args := range [][]string{{"/sbin/mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, folder}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Logf("SKIPPED, NOT TESTED: a full disk and a slow one: %s: %v: %s", args, err, out)
			require.NoError(t, os.Remove(folder))
			return nil
		}
	}
	t.Cleanup(func() { syscall.Unmount(folder, syscall.MNT_DETACH) }) // once the last process has left it
	require.NoError(t, os.Remove(folder+"/lost+found"))
	require.NoError(t, os.Chown(folder, int(a.credential.Uid), int(a.credential.Gid)))
	return &disk{folder}
}

// whileFull fills the disk, and frees it.
func (d *disk) whileFull(happen func()) error {
	file, err := os.Create(d.folder + "/fills it")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := syscall.Fallocate(int(file.Fd()), 0, 0, 2*diskSize); !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("there is room on a full disk: %w", err)
	}
	happen()
	return nil
}

// freeze lets nobody write to the disk for a while. Whoever does waits, and cannot even be killed. So it is a process
// of its own session that thaws it, whatever becomes of the test.
func (d *disk) freeze(while time.Duration) error {
	cmd := exec.Command("sh", "-c", `fsfreeze -f "$1" && sleep "$2"; fsfreeze -u "$1"`, "sh", d.folder, fmt.Sprint(while.Seconds()))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
