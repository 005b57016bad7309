import Foundation
internal import HostSystem

/// A server process that a test starts on a free loopback port, in a process group of its own that ends with the last
/// reference. Without Foundation's `Process`: that hands the signal mask of the calling thread on, a thread of the pool blocks
/// SIGTERM, and a server that cannot be terminated is waited for without end.
public final class SpawnedServer: @unchecked Sendable {
    public struct NotUp: Error, CustomStringConvertible {
        public let description: String
    }

    public let port: Int
    public var url: String { "http://127.0.0.1:\(port)" }
    // Written in init and in `stop`, which only the owner and deinit call.
    private var process: pid_t = 0

    /// Starts `arguments` (each `{port}` in them and in `environment` replaced) and waits until the port accepts
    /// connections. The program inherits the environment, with `environment` over it.
    public init(
        _ arguments: [String], environment: [String: String] = [:], log: String = "/dev/null",
        patience: Duration = .seconds(60)
    ) throws {
        port = LoopbackServer.freePort()
        let words = ["/usr/bin/env"] + arguments.map { $0.replacingOccurrences(of: "{port}", with: String(port)) }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        var all = sigset_t()
        sigemptyset(&none)
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0o644)
        posix_spawn_file_actions_adddup2(&actions, 1, 2)
        let variables = Host.environment().merging(environment) { $1 }.map {
            "\($0)=\($1.replacingOccurrences(of: "{port}", with: String(port)))"
        }
        var arguments = words.map { strdup($0) } + [nil]
        var settings = variables.map { strdup($0) } + [nil]
        defer { for text in arguments + settings { free(text) } }
        let code = posix_spawn(&process, "/usr/bin/env", &actions, &attributes, &arguments, &settings)
        guard code == 0 else { throw HostError("posix_spawn", words.joined(separator: " "), errno: code) }
        let end = ContinuousClock.now.advanced(by: patience)
        while !LoopbackServer.accepts(port) {
            var status: Int32 = 0
            let isGone = waitpid(process, &status, WNOHANG) == process
            if isGone { process = 0 }
            if isGone || ContinuousClock.now > end {
                stop()
                throw NotUp(description: "\(words.joined(separator: " ")) does not listen on port \(port)")
            }
            usleep(20_000)
        }
    }

    public func stop() {
        guard process > 0 else { return }
        kill(-process, SIGKILL)
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
        process = 0
    }

    deinit { stop() }
}
