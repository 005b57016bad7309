import Foundation
import HostSystem

/// A server process that a test starts on a free loopback port and that ends with the last reference to it.
public final class LoopbackServer: @unchecked Sendable {
    public struct NotUp: Error, CustomStringConvertible {
        public let description: String
    }

    // Set in init, used again in deinit alone.
    private let process = Process()
    public let port: Int
    public var url: String { "http://127.0.0.1:\(port)" }

    /// Starts `arguments` (each `{port}` in them replaced) and waits until the port accepts connections.
    public init(
        _ arguments: [String], port: Int = LoopbackServer.freePort(), environment: [String: String] = [:],
        log: String = "/dev/null", patience: Duration = .seconds(30)
    ) throws {
        self.port = port
        let words = arguments.map { $0.replacingOccurrences(of: "{port}", with: String(port)) }
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = words
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        if !FileManager.default.fileExists(atPath: log) { _ = FileManager.default.createFile(atPath: log, contents: nil) }
        process.standardOutput = FileHandle(forWritingAtPath: log)
        process.standardError = FileHandle(forWritingAtPath: log)
        process.standardInput = FileHandle.nullDevice
        try process.run()
        let end = ContinuousClock.now.advanced(by: patience)
        while !Self.accepts(port) {
            if !process.isRunning || ContinuousClock.now > end {
                process.terminate()
                throw NotUp(description: "\(words.joined(separator: " ")) does not listen on port \(port)")
            }
            usleep(30_000)
        }
    }

    public func stop() {
        guard process.isRunning else { return }
        process.terminate()
        process.waitUntilExit()
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
