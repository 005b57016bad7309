import Foundation
public import HostSystem

/// `Servers/fault-server.py` with a script: what it does with each request is told there.
public final class FaultServer: Sendable {
    public struct Seen: Decodable, Sendable {
        public let method: String
        public let target: String
        public let headers: [[String]]
        public let body: String

        /// Nil where no header of that name arrived.
        public func header(_ name: String) -> String? {
            headers.first { $0.first?.lowercased() == name.lowercased() }?.last
        }
    }

    public struct Rule {
        public var file: String?
        public var etag: String?
        public var modified: String?
        /// JSON objects.
        public var steps: [String]

        public init(file: String? = nil, etag: String? = nil, modified: String? = nil, steps: [String] = []) {
            self.file = file
            self.etag = etag
            self.modified = modified
            self.steps = steps
        }
    }

    private let server: LoopbackServer
    private let scratch: ScratchDirectory
    public var url: String { server.url }
    public var port: Int { server.port }

    public init(_ rules: [String: Rule]) throws {
        scratch = try ScratchDirectory()
        let entries = rules.map { path, rule in
            let fields = [("file", rule.file), ("etag", rule.etag), ("modified", rule.modified)]
                .compactMap { name, value in value.map { Self.quoted(name) + ":" + Self.quoted($0) } }
            return Self.quoted(path) + ":{"
                + (fields + ["\"steps\":[\(rule.steps.joined(separator: ","))]"]).joined(separator: ",") + "}"
        }
        let script = try scratch.write("script.json", "{\(entries.joined(separator: ","))}")
        server = try LoopbackServer(["python3", Self.program("fault-server.py"), "{port}", script])
    }

    /// What has arrived so far.
    public func requests() throws -> [Seen] {
        let answer = try CurlTransport(environment: [:]).perform(
            HTTPRequest("GET", url + "/__requests"), stop: .bounded())
        return try JSONDecoder().decode([Seen].self, from: Data(answer.body))
    }

    /// JSON text of a string.
    public static func quoted(_ text: String) -> String {
        String(decoding: (try? JSONEncoder().encode(text)) ?? Data("\"\"".utf8), as: UTF8.self)
    }

    /// The path of a program in `Servers`, beside this file.
    public static func program(_ name: String) -> String {
        (Files.parent(of: #filePath) ?? "") + "/Servers/" + name
    }
}

/// The servers that `scripts/test-tools` installs. A test that needs one and does not find it fails and says so.
public enum TestTools {
    public struct Missing: Error, CustomStringConvertible {
        public let description: String
    }

    public static func program(_ name: String) throws -> String {
        let environment = Host.environment()
        let cache = environment["XDG_CACHE_HOME"] ?? (environment["HOME"] ?? "/root") + "/.cache"
        let path = cache + "/amorce-tests/bin/" + name
        guard Files.exists(path) else {
            throw Missing(description: "\(name) is not installed (\(path)); run scripts/test-tools")
        }
        return path
    }
}

/// Bytes that look random and are the same in every run.
public func seededBytes(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
    var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
    return [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
        for index in 0..<count {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            buffer[index] = UInt8(truncatingIfNeeded: state >> 24)
        }
        initialized = count
    }
}

extension ByteSource {
    /// Everything to the end, copied.
    public func readAll() throws -> [UInt8] {
        var bytes: [UInt8] = []
        while true {
            let more = try nextBytes()
            if more.isEmpty { return bytes }
            bytes.append(contentsOf: more)
        }
    }
}
