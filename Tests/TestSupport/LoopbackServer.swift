import Foundation
import HostSystem

/// A server process that a test starts on a free loopback port, as the leader of a process group of its own that ends with the
/// last reference to it.
public final class LoopbackServer: @unchecked Sendable {
    public struct NotUp: Error, CustomStringConvertible {
        public let description: String
    }

    // Set in init, used again in `stop` alone.
    private var process: pid_t = 0
    public let port: Int
    public var url: String { "http://127.0.0.1:\(port)" }

    /// Starts `arguments` (each `{port}` in them replaced) and waits until the port accepts connections.
    public init(
        _ arguments: [String], port: Int = LoopbackServer.freePort(), environment: [String: String] = [:],
        log: String = "/dev/null", patience: Duration = .seconds(30)
    ) throws {
        self.port = port
        let words = arguments.map { $0.replacingOccurrences(of: "{port}", with: String(port)) }
        try spawn(["/usr/bin/env"] + words, environment: environment, log: log)
        let end = ContinuousClock.now.advanced(by: patience)
        while !Self.accepts(port) {
            var status: CInt = 0
            let hasEnded = waitpid(process, &status, WNOHANG) == process
            if hasEnded || ContinuousClock.now > end {
                if hasEnded { process = 0 }
                stop()
                throw NotUp(description: "\(words.joined(separator: " ")) does not listen on port \(port)")
            }
            usleep(30_000)
        }
    }

    /// Threads of a test run block signals, and a child inherits that: a server would never see its SIGTERM. So it gets an
    /// empty mask and every handler's default, which Foundation's Process does not give.
    private func spawn(_ arguments: [String], environment: [String: String], log: String) throws {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0o644)
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
        let whole = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        let argv = arguments.map { strdup($0) } + [nil]
        let envp = whole.map { strdup($0.key + "=" + $0.value) } + [nil]
        defer { for pointer in argv + envp { free(pointer) } }
        let code = posix_spawn(&process, arguments[0], &actions, &attributes, argv, envp)
        guard code == 0 else { throw HostError("posix_spawn", arguments[0], errno: code) }
    }

    /// SIGTERM, and SIGKILL for what is still there three seconds later.
    public func stop() {
        guard process > 0 else { return }
        kill(-process, SIGTERM)
        var status: CInt = 0
        for _ in 0..<300 where waitpid(process, &status, WNOHANG) == 0 { usleep(10_000) }
        kill(-process, SIGKILL)
        waitpid(process, &status, 0)
        process = 0
    }

    deinit { stop() }

    /// A port that was free a moment ago.
    public static func freePort() -> Int {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = loopback(0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                _ = bind(descriptor, $0, length)
                _ = getsockname(descriptor, $0, &length)
            }
        }
        return Int(UInt16(bigEndian: address.sin_port))
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

    private static func loopback(_ port: Int) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return address
    }
}
