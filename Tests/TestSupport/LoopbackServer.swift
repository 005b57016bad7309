import Foundation
import HostSystem
import Synchronization

/// A server process that a test starts on a free loopback port, as the leader of a process group of its own that ends with the
/// last reference to it. No wait here is without an end.
public final class LoopbackServer: @unchecked Sendable {
    public struct NotUp: Error, CustomStringConvertible {
        public let description: String
    }

    /// How a test knows that the server is ready.
    public enum Readiness {
        /// Its port accepts a connection.
        case port
        /// It has written this: for a program to which a connection more would matter.
        case output(String)
    }

    // Set in init, used again in `stop` alone.
    private var process: pid_t = 0
    public let port: Int
    public var url: String { "http://127.0.0.1:\(port)" }

    /// Starts `arguments` and waits until the server is ready. Each `{port}` in them and in `environment` is replaced; the
    /// program inherits the environment of the test, with `environment` over it.
    public init(
        _ arguments: [String], port: Int = LoopbackServer.freePort(), environment: [String: String] = [:],
        isReady readiness: Readiness = .port, patience: Duration = .seconds(60)
    ) throws {
        self.port = port
        func filled(_ text: String) -> String { text.replacingOccurrences(of: "{port}", with: String(port)) }
        let words = arguments.map(filled)
        let scratch = try ScratchDirectory()
        var log = "/dev/null"
        if case .output = readiness { log = scratch("output") }
        try spawn(
            ["/usr/bin/env"] + words, Host.environment().merging(environment.mapValues(filled)) { $1 }, output: log)
        let end = ContinuousClock.now.advanced(by: patience)
        while !Self.isReady(readiness, port, log) {
            let hasEnded = hasEnded
            if hasEnded || ContinuousClock.now > end {
                stop()
                let fault = hasEnded ? "has ended" : "is not ready after \(patience.spoken)"
                throw NotUp(description: "\(words.joined(separator: " ")) on port \(port) \(fault)")
            }
            usleep(20_000)
        }
    }

    private static func isReady(_ readiness: Readiness, _ port: Int, _ log: String) -> Bool {
        switch readiness {
        case .port: accepts(port)
        case .output(let text): (try? FileReading.text(log, limit: 64 << 10))?.contains(text) ?? false
        }
    }

    /// Threads of a test run block signals, and a child inherits that: a server would never see its SIGTERM. So it gets an
    /// empty mask and every handler's default, which Foundation's Process does not give.
    private func spawn(_ arguments: [String], _ environment: [String: String], output: String) throws {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_APPEND, 0o644)
        posix_spawn_file_actions_adddup2(&actions, 1, 2)
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
        let envp = environment.map { strdup($0.key + "=" + $0.value) } + [nil]
        defer { for pointer in argv + envp { free(pointer) } }
        let code = posix_spawn(&process, arguments[0], &actions, &attributes, argv, envp)
        guard code == 0 else { throw HostError("posix_spawn", arguments[0], errno: code) }
    }

    /// It stays a zombie until `stop` takes note, so that its number, which is its group's, is not given away.
    private var hasEnded: Bool {
        var information = siginfo_t()
        return waitid(P_PID, id_t(process), &information, WEXITED | WNOHANG | WNOWAIT) != 0
            || information.si_signo == SIGCHLD
    }

    private func hasEnded(within patience: Duration) -> Bool {
        let end = ContinuousClock.now.advanced(by: patience)
        while !hasEnded {
            if ContinuousClock.now > end { return false }
            usleep(10_000)
        }
        return true
    }

    /// SIGTERM, and SIGKILL for what is still there three seconds later.
    public func stop() {
        guard process > 0 else { return }
        kill(-process, SIGTERM)
        _ = hasEnded(within: .seconds(3))
        kill(-process, SIGKILL)
        // A process that hangs in the kernel is left behind.
        if hasEnded(within: .seconds(10)) { waitpid(process, nil, 0) }
        process = 0
    }

    deinit { stop() }

    private static let lastPort = Mutex(Int.random(in: 0..<20_000))

    /// A port that was free a moment ago, and that neither this process nor an outgoing connection takes meanwhile: the kernel
    /// gives those ports from 32768 on (ip(7), ip_local_port_range).
    public static func freePort() -> Int {
        while true {
            let port = lastPort.withLock { last in
                last = (last + 1) % 20_000
                return 12_000 + last
            }
            let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            defer { close(descriptor) }
            var address = loopback(port)
            let isFree = withUnsafePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
                }
            }
            if isFree { return port }
        }
    }

    public static func accepts(_ port: Int) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = loopback(port)
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
    }

    static func loopback(_ port: Int) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return address
    }
}
