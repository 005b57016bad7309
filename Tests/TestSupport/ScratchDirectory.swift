import Foundation
internal import HostSystem

/// A folder that a test owns, gone when the last reference is.
public final class ScratchDirectory: Sendable {
    public let path: String

    public init() throws {
        path = "/tmp/amorce-test-" + Host.randomHex(bytes: 8)
        try Files.makeNewDirectory(path, mode: 0o755)
    }

    deinit { try? Files.removeTree(path) }

    public func callAsFunction(_ relative: String) -> String { path + "/" + relative }

    /// Writes a file below it, with the folders that it needs; returns its path.
    @discardableResult
    public func write(_ relative: String, _ text: String, mode: UInt32 = 0o644) throws -> String {
        try write(relative, Array(text.utf8), mode: mode)
    }

    @discardableResult
    public func write(_ relative: String, _ bytes: [UInt8], mode: UInt32 = 0o644) throws -> String {
        let place = self(relative)
        if let parent = Files.parent(of: place) { try Files.makeDirectories(parent) }
        try AtomicFile.prepare(bytes, at: place, mode: mode)
        return place
    }
}
