package origintest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// install implements `uv pip install`. Like uv, it links wheels from the cache into an
// environment: it identifies a wheel of a --find-links directory by the path of the directory
// and the name of the wheel, and reads the wheel only if the cache does not have it. A wheel
// that is given by its path is never taken from the cache. A wheel that contains a file FAIL
// fails while it is being unpacked.
func install(args []string) error {
	var dirs []string
	var rest []string
	for i := 0; i < len(args); i++ {
		if args[i] == "--find-links" && i+1 < len(args) {
			i++
			dirs = append(dirs, args[i])
			continue
		}
		rest = append(rest, args[i])
	}
	opts, _, err := parseFlags(rest, []string{"no-config", "offline", "no-index", "no-deps", "no-progress", "quiet", "compile-bytecode"},
		[]string{"python", "requirements", "link-mode"}, nil, 0)
	if err != nil {
		return err
	}
	cache := os.Getenv("UV_CACHE_DIR")
	if cache == "" || opts["link-mode"] != "hardlink" {
		return usageError{errors.New("UV_CACHE_DIR or --link-mode hardlink is missing")}
	}
	list, err := os.ReadFile(opts["requirements"])
	if err != nil {
		return err
	}
	root := filepath.Dir(filepath.Dir(opts["python"]))
	if _, err := os.Stat(filepath.Join(root, "pyvenv.cfg")); err != nil {
		return fmt.Errorf("%s is not a virtual environment: %w", root, err)
	}
	var archives []string
	for requirement := range strings.FieldsSeq(string(list)) {
		archive, err := cachedWheel(cache, dirs, requirement)
		if err != nil {
			return err
		}
		archives = append(archives, archive)
	}
	site := filepath.Join(root, "lib", "python3.12", "site-packages")
	for _, archive := range archives {
		if err := linkWheel(archive, site, filepath.Join(root, "bin")); err != nil {
			return err
		}
	}
	return compileBytecode(site)
}

// cachedWheel returns the cache directory that contains the unpacked wheel of a requirement.
// It unpacks the wheel if necessary. A requirement is name==version or the path of a wheel.
func cachedWheel(cache string, dirs []string, requirement string) (archive string, err error) {
	name, version, hasVersion := strings.Cut(requirement, "==")
	if !hasVersion {
		return unpackWheel(cache, requirement)
	}
	for _, dir := range dirs {
		u, err := url.Parse(dir)
		if err != nil || u.Scheme != "file" {
			return "", usageError{fmt.Errorf("invalid --find-links %q: want a file URL", dir)}
		}
		dir = u.Path
		wheels, err := filepath.Glob(filepath.Join(dir, "*.whl"))
		if err != nil {
			return "", err
		}
		for _, wheel := range wheels {
			parts := strings.SplitN(filepath.Base(wheel), "-", 3)
			if normalize(parts[0]) != normalize(name) || parts[1] != version {
				continue
			}
			sum := sha256.Sum256([]byte(dir))
			pointer := filepath.Join(cache, "wheels-v8", "index", hex.EncodeToString(sum[:8]), normalize(name), version+"-"+strings.TrimSuffix(parts[2], ".whl"))
			if archive, err := filepath.EvalSymlinks(pointer); err == nil {
				return archive, nil
			}
			archive, err := unpackWheel(cache, wheel)
			if err != nil {
				return "", err
			}
			if err := os.MkdirAll(filepath.Dir(pointer), 0o700); err != nil {
				return "", err
			}
			target, err := filepath.Rel(filepath.Dir(pointer), archive)
			return archive, errors.Join(err, os.WriteFile(pointer+".rev", nil, 0o600), os.WriteFile(pointer+".lock", nil, 0o600), os.Symlink(target, pointer))
		}
	}
	return "", fmt.Errorf("no solution found: %s was not found in the provided package locations", requirement)
}

// unpackWheel unpacks a wheel into a new directory of the cache.
func unpackWheel(cache, path string) (archive string, err error) {
	files, err := unzip(path)
	if err != nil {
		return "", fmt.Errorf("failed to read %s: %w", filepath.Base(path), err)
	}
	archives := filepath.Join(cache, "archive-v0")
	if err := os.MkdirAll(archives, 0o700); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(cache, ".tmp")
	if err != nil {
		return "", err
	}
	for name, text := range files {
		if name == "FAIL" {
			return "", errors.Join(fmt.Errorf("failed to install: %s", filepath.Base(path)), os.RemoveAll(temp))
		}
		to, mode := filepath.Join(temp, name), os.FileMode(0o644)
		if strings.Contains(name, ".data/scripts/") {
			mode = 0o755
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, []byte(text), mode)); err != nil {
			return "", err
		}
	}
	archive = filepath.Join(archives, strings.TrimPrefix(filepath.Base(temp), ".tmp"))
	return archive, os.Rename(temp, archive)
}

// linkWheel links the files of an unpacked wheel into an environment. It copies files that
// cannot be linked, scripts, and the wheel's RECORD.
func linkWheel(archive, site, bin string) error {
	return filepath.WalkDir(archive, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(archive, path)
		if err != nil {
			return err
		}
		to, mustCopy := filepath.Join(site, name), filepath.Base(name) == "RECORD"
		if _, script, ok := strings.Cut(name, ".data/scripts/"); ok {
			to, mustCopy = filepath.Join(bin, script), true
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if !mustCopy {
			if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if os.Link(path, to) == nil {
				return nil
			}
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(to, text, info.Mode().Perm()))
	})
}

// compileBytecode writes the bytecode of all Python files without up-to-date bytecode.
func compileBytecode(site string) error {
	return filepath.WalkDir(site, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".py") {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		compiled := []byte(fmt.Sprintf("bytecode %d %d", info.ModTime().Unix(), info.Size()))
		dir := filepath.Join(filepath.Dir(path), "__pycache__")
		to := filepath.Join(dir, strings.TrimSuffix(filepath.Base(path), ".py")+".cpython-312.pyc")
		if have, err := os.ReadFile(to); err == nil && slices.Equal(have, compiled) {
			return nil
		}
		return errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(to+".tmp", compiled, 0o644), os.Rename(to+".tmp", to))
	})
}
