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

/// Runs a program as the leader of a process group of its own, from an argument vector, with an environment that the caller
/// names whole. Standard output and error are drained by the calling thread, so no pipe fills up. When the run is stopped, or
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
        /// Asked every 100 ms with the child's pid; true means that it has stalled.
        public var isStalled: ((Int32) -> Bool)?

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
        let program = try find(name, in: environment["PATH"] ?? searchPath)
        let output = try Pipe()
        let errors = try Pipe()
        // Small inputs alone: they fit a pipe's buffer, so writing them all before reading cannot block.
        precondition(options.input.count <= 4096, "standard input of a child is limited to 4 KiB")
        let input = try Pipe()
        if !options.input.isEmpty { Host.write(options.input, descriptor: input.writeEnd) }
        input.closeWriteEnd()

        let child = try spawn(
            program, arguments, environment, input: input.readEnd, output: output.writeEnd, errors: errors.writeEnd)
        input.closeReadEnd()
        output.closeWriteEnd()
        errors.closeWriteEnd()
        return try Supervision(child: child, output: output, errors: errors, options: options).wait(stop)
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
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK))

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
            var status: CInt?
            var forced: ChildResult.End?
            var stopped: StopReason?
            var killAt: ContinuousClock.Instant?
            var isKilled = false

            while true {
                drain(&captured, &tail)
                if status == nil { status = reap() }
                // A grandchild that keeps the pipes open (a daemon started by a reload) does not keep us: once the child is
                // gone, what is in the pipes now is all we wait for.
                if status != nil { break }
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
            if stopped != nil || forced != nil { endGroup() }
            if let stopped { throw stopped }
            let raw = status ?? 0
            let end: ChildResult.End =
                forced
                ?? (amorce_exited(raw) != 0
                    ? .exited(amorce_exit_status(raw)) : .signalled(amorce_termination_signal(raw)))
            return ChildResult(end: end, output: captured, errors: tail)
        }

        private func reap() -> CInt? {
            var status: CInt = 0
            let result = waitpid(child, &status, WNOHANG)
            if result == child { return status }
            // SIGCHLD ignored by whoever started amorce: the kernel reaped the child and its status is lost.
            return result < 0 && errno == ECHILD ? 0 : nil
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
            while pipe.readEnd >= 0 {
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

        /// After a forced end: whoever is left in the group is killed, and the group is empty before this returns. Members
        /// that are not our children are reaped by init; kill(2) answers ESRCH once none is left.
        private func endGroup() {
            for _ in 0..<200 {
                if kill(-child, SIGKILL) != 0 && errno == ESRCH { return }
                usleep(10_000)
            }
        }
    }
}
