internal import FoundationEssentials
public import HostSystem

/// The one file that says that this front is ready: written last, after the proof, removed first. It names the boot that wrote
/// it, so that a copy that survives a reboot (a baked image, a restored disk) says nothing.
public struct HealthFile: Sendable {
    public struct Contents: Sendable, Codable, Equatable {
        public let app: String
        public let environment: String
        public let release: String
        public let bootIdentifier: String
        public let since: Int64
        public let degraded: String?
    }

    private let layout: HostLayout

    public init(layout: HostLayout) { self.layout = layout }

    /// Whatever ends without a proof has called this first.
    public func withdraw() throws { try Files.remove(layout.healthFile) }

    public func write(_ contents: Contents) throws {
        // Readable by the web server, which shows it under the health URL; nothing in it is secret.
        try AtomicFile.write(try RunRecorder.encode(contents), to: layout.healthFile, mode: 0o644)
    }

    /// Nil where there is none, where it cannot be read, and where another boot wrote it.
    public func read() -> Contents? {
        guard let bytes = try? FileReading.bytes(layout.healthFile, limit: 64 << 10),
            let contents = try? RunRecorder.decode(Contents.self, from: bytes),
            contents.bootIdentifier == Host.bootIdentifier(layout)
        else { return nil }
        return contents
    }
}
