internal import CLinux
internal import Glibc

/// How a program ended, and what it said.
public struct ChildResult: Sendable {
    public enum End: Sendable, Equatable {
        case exited(CInt)
        case signalled(CInt)
        /// Killed by us: it ran longer than its timeout, or the watchdog saw no progress.
        case timedOut
        case stalled
    }

    public let end: End
    /// Standard output, up to the cap; empty when a handler took it.
    public let output: [UInt8]
    /// The end of standard error, up to the cap.
    public let errors: [UInt8]

    public var isSuccess: Bool { end == .exited(0) }

    /// For a message: how it ended, and the last lines it wrote to standard error (or output).
    public var explanation: String {
        let how =
            switch end {
            case .exited(let code): "exit status \(code)"
            case .signalled(let number): "killed by signal \(number)"
            case .timedOut: "took too long and was stopped"
            case .stalled: "made no progress and was stopped"
            }
        let source = errors.isEmpty ? output : errors
        let lines = source.split(separator: 0x0a).suffix(4).map { Printable.text($0, limit: 300) }
        return how + (lines.isEmpty ? "" : ": " + lines.joined(separator: " | "))
    }
}

/// Runs a program as the leader of a session and process group of its own, from an argument vector, with an environment that
/// the caller names whole. Without a controlling terminal no program can stop to ask a person for a password (ssh and rsync
/// open /dev/tty for that, whatever their standard input is). Standard output and error are drained by the calling thread, so no pipe fills up. When the run is stopped, or
/// the program takes too long or stalls, the whole group is ended and waited for before `run` returns: a child of the program
/// (rsync's receiver) would otherwise go on writing.
public enum ChildProcess {
    public struct NotFound: Error, Sendable, CustomStringConvertible {
        public let program: String
        public let searched: String
        public var description: String { "the program \(program) is not installed (looked in \(searched))" }
    }

    public struct Options {
        /// From start to end; nil: no limit but the run's own deadline.
        public var timeout: Duration?
        /// Between SIGTERM and SIGKILL.
        public var grace: Duration = .seconds(3)
        public var input: [UInt8] = []
        public var outputLimit = 1 << 20
        public var errorLimit = 64 << 10
        /// Receives standard output as it comes, in place of the result.
        public var onOutput: ((ArraySlice<UInt8>) -> Void)?
        /// Asked at least every 100 ms with the child's pid, which is also its group's; true means that it has stalled.
        public var isStalled: ((Int32) -> Bool)?
        /// The group ends with its leader, however that ended: for a program with workers (rsync) and none that starts daemons.
        public var endsGroup = false
        /// The group is killed when this process dies, even by SIGKILL: the workers of a program would go on writing. Such a
        /// program has no standard input.
        public var isTethered = false

        public init() {}
    }

    /// Where administrators' programs lie; the environment's own PATH is not trusted to be there at boot.
    public static let searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    /// LC_ALL=C, so that messages can be read by their known words, and a PATH. Nothing else is inherited.
    public static let cleanEnvironment = ["PATH": searchPath, "LC_ALL": "C"]

    /// The absolute path of a program; one with a slash is taken as it is.
    public static func find(_ program: String, in path: String = searchPath) throws(NotFound) -> String {
        if program.contains("/") {
            if access(program, X_OK) == 0 { return program }
            throw NotFound(program: program, searched: "that place")
        }
        for folder in path.split(separator: ":") where access("\(folder)/\(program)", X_OK) == 0 {
            return "\(folder)/\(program)"
        }
        throw NotFound(program: program, searched: path)
    }

    /// Blocks until the program and everything in its group has ended. Throws `NotFound`, `HostError` when it cannot be
    /// started, and `StopReason` when the run was stopped meanwhile.
    public static func run(
        _ arguments: [String], environment: [String: String] = cleanEnvironment, options: Options = Options(), stop: StopFlag
    ) throws -> ChildResult {
        guard let name = arguments.first else { throw NotFound(program: "", searched: searchPath) }
        var program = try find(name, in: environment["PATH"] ?? searchPath)
        var words = arguments
        if options.isTethered {
            precondition(options.input.isEmpty, "a tethered child has no standard input")
            words = ["/bin/sh", "-c", tether, "amorce-tether", program] + arguments.dropFirst()
            program = words[0]
        }
        let output = try Pipe()
        let errors = try Pipe()
        // Small inputs alone: they fit a pipe's buffer, so writing them all before reading cannot block.
        precondition(options.input.count <= 4096, "standard input of a child is limited to 4 KiB")
        let input = try Pipe()
        if !options.input.isEmpty { Host.write(options.input, descriptor: input.writeEnd) }
        if !options.isTethered { input.closeWriteEnd() }
        // Whoever started amorce may have ignored SIGCHLD; the kernel would then reap the child and keep its status from us.
        noticeChildren()

        let child = try spawn(
            program, words, environment, input: input.readEnd, output: output.writeEnd, errors: errors.writeEnd)
        input.closeReadEnd()
        output.closeWriteEnd()
        errors.closeWriteEnd()
        // `input` lives until the end of this call: closing it is what a tether waits for.
        return try withExtendedLifetime(input) {
            try Supervision(child: child, output: output, errors: errors, options: options).wait(stop)
        }
    }

    /// Becomes the program `$@`, and leaves one small process behind in its group, which reads a pipe that nobody writes to.
    /// Its end of file means that the other end is gone, and with it the process that started all this: the group is killed.
    /// Only positional parameters reach the shell: no argument is ever part of its program.
    static let tether = """
        exec 3<&0 </dev/null
        { read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 &
        exec 3<&-
        exec "$@"
        """

    /// POSIX_SPAWN_SETSID of glibc 2.26, which its header shows to GNU programs alone.
    private static let newSession: CInt = 0x80

    private static func noticeChildren() {
        var action = sigaction()
        if sigaction(SIGCHLD, nil, &action) == 0, action.sa_flags & SA_NOCLDWAIT != 0 || isIgnored(action) {
            signal(SIGCHLD, SIG_DFL)
        }
    }

    private static func isIgnored(_ action: sigaction) -> Bool {
        unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self)
    }

    private static func spawn(
        _ program: String, _ arguments: [String], _ environment: [String: String], input: CInt, output: CInt, errors: CInt
    ) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        // Everything that amorce opens is close-on-exec; dup2 gives these three to the child.
        posix_spawn_file_actions_adddup2(&actions, input, 0)
        posix_spawn_file_actions_adddup2(&actions, output, 1)
        posix_spawn_file_actions_adddup2(&actions, errors, 2)
        amorce_spawn_in_directory(&actions, "/")

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var all = sigset_t()
        sigfillset(&all)
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setsigmask(&attributes, &none)
        // A new session is also a new process group, of the same number.
        posix_spawnattr_setflags(
            &attributes, Int16(newSession | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK))

        let argv = arguments.map { strdup($0) } + [nil]
        let envp = environment.sorted { $0.key < $1.key }.map { strdup($0.key + "=" + $0.value) } + [nil]
        defer { for pointer in argv + envp { free(pointer) } }
        var child: pid_t = 0
        let code = posix_spawn(&child, program, &actions, &attributes, argv, envp)
        guard code == 0 else { throw HostError("posix_spawn", program, errno: code) }
        return child
    }

    /// Both ends close-on-exec; each is closed once.
    fileprivate final class Pipe {
        private(set) var readEnd: CInt
        private(set) var writeEnd: CInt

        init() throws(HostError) {
            var ends: [CInt] = [-1, -1]
            guard amorce_pipe(&ends) == 0 else { throw HostError("pipe2", "", errno: errno) }
            (readEnd, writeEnd) = (ends[0], ends[1])
        }

        deinit {
            closeReadEnd()
            closeWriteEnd()
        }

        func closeReadEnd() {
            if readEnd >= 0 { close(readEnd) }
            readEnd = -1
        }

        func closeWriteEnd() {
            if writeEnd >= 0 { close(writeEnd) }
            writeEnd = -1
        }
    }

    /// Reads until both pipes are at their end and the child is gone; then makes sure that its group is.
    fileprivate struct Supervision {
        let child: pid_t
        let output: Pipe
        let errors: Pipe
        let options: Options

        func wait(_ stop: StopFlag) throws -> ChildResult {
            let begun = ContinuousClock.now
            var captured: [UInt8] = []
            var tail: [UInt8] = []
            var forced: ChildResult.End?
            var stopped: StopReason?
            var killAt: ContinuousClock.Instant?
            var isKilled = false

            while true {
                drain(&captured, &tail)
                // A grandchild that keeps the pipes open (a daemon started by a reload) does not keep us: once the child is
                // gone, what is in the pipes now is all we wait for.
                if try hasEnded() { break }
                if killAt == nil {
                    if let reason = stop.reason {
                        stopped = reason
                    } else if let timeout = options.timeout, ContinuousClock.now - begun > timeout {
                        forced = .timedOut
                    } else if options.isStalled?(child) == true {
                        forced = .stalled
                    }
                    if stopped != nil || forced != nil {
                        kill(-child, SIGTERM)
                        killAt = ContinuousClock.now.advanced(by: options.grace)
                    }
                } else if let time = killAt, ContinuousClock.now >= time, !isKilled {
                    kill(-child, SIGKILL)
                    isKilled = true
                }
                pause()
            }
            drain(&captured, &tail)
            if stopped != nil || forced != nil || options.endsGroup || options.isTethered { ProcessGroup.end(child) }
            let raw = try reap()
            if let stopped { throw stopped }
            let end: ChildResult.End =
                forced
                ?? (amorce_exited(raw) != 0
                    ? .exited(amorce_exit_status(raw)) : .signalled(amorce_termination_signal(raw)))
            return ChildResult(end: end, output: captured, errors: tail)
        }

        /// Whether the child has ended. It stays a zombie, so that its number, which is its group's, cannot be given to
        /// another process before the group is dealt with.
        private func hasEnded() throws(HostError) -> Bool {
            var information = siginfo_t()
            let result = waitid(P_PID, id_t(child), &information, WEXITED | WNOHANG | WNOWAIT)
            // ECHILD: somebody else took the status. How the program ended is not known, which is no success.
            if result != 0 && errno != EINTR { throw HostError("waitid", "", errno: errno) }
            return result == 0 && information.si_signo == SIGCHLD
        }

        private func reap() throws(HostError) -> CInt {
            var status: CInt = 0
            while waitpid(child, &status, 0) != child {
                if errno != EINTR { throw HostError("waitpid", "", errno: errno) }
            }
            return status
        }

        /// Waits for output or 100 ms; a child that ends closes its pipes, which wakes this at once.
        private func pause() {
            var descriptors = [output.readEnd, errors.readEnd].filter { $0 >= 0 }
                .map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
            if descriptors.isEmpty { usleep(5_000) } else { poll(&descriptors, nfds_t(descriptors.count), 100) }
        }

        private func drain(_ captured: inout [UInt8], _ tail: inout [UInt8]) {
            read(output) { bytes in
                if let handler = options.onOutput {
                    handler(bytes)
                } else {
                    captured.append(contentsOf: bytes.prefix(max(0, options.outputLimit - captured.count)))
                }
            }
            read(errors) { bytes in
                tail.append(contentsOf: bytes)
                if tail.count > options.errorLimit { tail.removeFirst(tail.count - options.errorLimit) }
            }
        }

        private func read(_ pipe: Pipe, _ take: (ArraySlice<UInt8>) -> Void) {
            var buffer = [UInt8](repeating: 0, count: 64 << 10)
            // Bounded, or a program that writes faster than we read would keep its own timeout from being looked at. More than
            // a pipe holds, so that nothing is left behind at the end.
            for _ in 0..<32 where pipe.readEnd >= 0 {
                var descriptor = pollfd(fd: pipe.readEnd, events: Int16(POLLIN), revents: 0)
                guard poll(&descriptor, 1, 0) > 0 else { return }
                let count = Glibc.read(pipe.readEnd, &buffer, buffer.count)
                if count > 0 {
                    take(buffer[..<count])
                } else if count == 0 || errno != EINTR {
                    pipe.closeReadEnd()
                }
            }
        }
    }
}
