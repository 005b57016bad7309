internal import CLinux
internal import Glibc

/// Facts of the running process and machine.
public enum Host {
    public static var processIdentifier: Int32 { getpid() }
    public static var isSuperuser: Bool { geteuid() == 0 }
    public static var userIdentifier: UInt32 { geteuid() }
    public static var groupIdentifier: UInt32 { getegid() }

    /// Changes with every boot of the machine (random(4)); empty where the kernel does not tell.
    public static func bootIdentifier(_ layout: HostLayout) -> String {
        (try? FileReading.text(layout.bootIdentifier, limit: 128))?
            .filter { $0.isHexDigit || $0 == "-" } ?? ""
    }

    /// Seconds since 1970 by the wall clock. For stamps and ages only; waits use the monotonic clock.
    public static var now: Int64 { Int64(time(nil)) }

    /// Processors that this process may run on (sched_getaffinity(2)).
    public static var processors: Int { max(1, Int(amorce_processors())) }

    public static func randomHex(bytes count: Int) -> String {
        var bytes = [UInt8](repeating: 0, count: count)
        precondition(amorce_random(&bytes, count) == 0, "getrandom failed: the kernel has no entropy source")
        return bytes.hex
    }

    public static func environment() -> [String: String] {
        var result: [String: String] = [:]
        var cursor = environ
        while let entry = cursor.pointee {
            let text = String(cString: entry)
            if let equals = text.firstIndex(of: "=") {
                result[String(text[..<equals])] = String(text[text.index(after: equals)...])
            }
            cursor += 1
        }
        return result
    }

    /// Whether the descriptor is a terminal, and how wide it is (0 when unknown).
    public static func terminalWidth(descriptor: CInt) -> Int? {
        isatty(descriptor) == 1 ? Int(amorce_terminal_columns(descriptor)) : nil
    }

    /// Writes all bytes to a descriptor of this process; false when nobody reads any more (EPIPE) or it is closed.
    @discardableResult
    public static func write(_ bytes: [UInt8], descriptor: CInt) -> Bool {
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress?.advanced(by: done), $0.count - done)
            }
            if count < 0 {
                if errno == EINTR { continue }
                return false
            }
            done += count
        }
        return true
    }

    /// Opens /dev/null in place of any of the three standard descriptors that is closed, so that no file opened later gets
    /// number 0, 1 or 2 and is written to by mistake.
    public static func secureStandardDescriptors() {
        while true {
            let descriptor = amorce_openat(AT_FDCWD, "/dev/null", O_RDWR, 0)
            if descriptor < 0 { return }
            if descriptor > 2 {
                close(descriptor)
                return
            }
        }
    }

    /// Large buffers go back to the system when they are freed. glibc would raise the size from which it maps them one by one with
    /// each that is freed, and then keep them (mallopt(3), M_MMAP_THRESHOLD); several threads make that much.
    public static func returnLargeBuffers() { amorce_return_large_buffers(512 << 10) }

    /// Whatever umask the caller had: amorce names every mode itself, and the programs it starts (a web server and its logs)
    /// must not inherit 000 or 077.
    public static func setUmask() { umask(0o022) }

    // Set once, before any signal can arrive; a signal handler can reach nothing but a global.
    nonisolated(unsafe) private static var flag: StopFlag?

    /// SIGTERM, SIGINT and SIGHUP raise `flag`; SIGPIPE is ignored, so that a reader that went away is an error and no death.
    public static func stopOnSignals(_ stopFlag: StopFlag) {
        flag = stopFlag
        for number in [SIGTERM, SIGINT, SIGHUP] {
            var action = sigaction()
            action.__sigaction_handler.sa_handler = { number in Host.flag?.raise(signal: number) }
            action.sa_flags = SA_RESTART
            sigaction(number, &action, nil)
        }
        signal(SIGPIPE, SIG_IGN)
    }
}

/// A user or group looked up in the host's own files: a static binary sees no other name service (facts of nsswitch(5)).
public enum Accounts {
    /// `user:group`, `user`, or numbers; the group defaults to the user's own. Nil where a name is not known.
    public static func resolve(_ text: String, layout: HostLayout) -> (owner: UInt32, group: UInt32)? {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard let name = parts.first, parts.count <= 2 else { return nil }
        let users = table(layout.path("/etc/passwd"), fallback: "/etc/passwd")
        let entry = users.first { $0.first == name }
        guard let owner = entry.flatMap({ $0.count > 2 ? UInt32($0[2]) : nil }) ?? UInt32(name) else { return nil }
        if parts.count == 2 {
            let groups = table(layout.path("/etc/group"), fallback: "/etc/group")
            let found = groups.first { $0.first == parts[1] }
            guard let group = found.flatMap({ $0.count > 2 ? UInt32($0[2]) : nil }) ?? UInt32(parts[1]) else {
                return nil
            }
            return (owner, group)
        }
        return (owner, entry.flatMap { $0.count > 3 ? UInt32($0[3]) : nil } ?? owner)
    }

    private static func table(_ path: String, fallback: String) -> [[String]] {
        let text =
            (try? FileReading.text(path, limit: 4 << 20)) ?? (try? FileReading.text(fallback, limit: 4 << 20)) ?? ""
        return text.split(separator: "\n").map {
            $0.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        }
    }
}
