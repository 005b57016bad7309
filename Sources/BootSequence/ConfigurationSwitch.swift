internal import HostSystem

/// Puts the configuration of a release in the place of another's, and `current` with it. Files change by rename, each whole;
/// the set of them changes under the journal of `ReleaseStore`, so that a run killed between two renames is taken back by the
/// next one. Services go on serving what they loaded until they are reloaded, after the last rename.
struct ConfigurationSwitch {
    let store: ReleaseStore
    private var layout: HostLayout { store.layout }
    private var originals: String { layout.state + "/originals" }

    /// What stood in a rendered file's place before amorce's first release; no entry when nothing did.
    private struct Original: Codable {
        let path: String
        let entry: ConfigurationEntry?
    }

    /// A rendered file could not be put in place because something other than a file or symlink stands there.
    struct Occupied: Error, CustomStringConvertible {
        let path: String
        var description: String {
            "\(path) is neither a file nor a symlink, so no configuration file can take its place"
        }
    }

    /// Makes the configuration of `target` the live one, where that of `source` is (or may partly be) now. Both may be nil: the
    /// state before the first release. Repeating it changes nothing.
    func apply(_ target: ReleaseRecord?, over source: ReleaseRecord?) throws {
        var wanted: [String: (entry: ConfigurationEntry, release: String?)] = [:]
        for entry in target?.configuration ?? [] { wanted[entry.path] = (entry, target?.identifier) }
        var removed: [String] = []
        for entry in source?.configuration ?? [] where wanted[entry.path] == nil {
            // Every path is remembered before the first one is touched: what is not remembered is not amorce's to remove.
            guard let original = try self.original(entry.path) else { continue }
            if let kept = original.entry { wanted[entry.path] = (kept, nil) } else { removed.append(entry.path) }
        }

        let managed = Set((source?.configuration ?? []).map(\.path))
        for path in wanted.keys where !managed.contains(path) { try rememberOriginal(path) }

        // Everything that can fail for want of room or permission is done before the first rename.
        var renames: [(from: String, to: String)] = []
        for (path, item) in wanted.sorted(by: { $0.key < $1.key }) {
            if try isInPlace(item.entry) { continue }
            let place = layout.path(path)
            if let status = try Files.status(place), status.kind == .directory || status.kind == .other {
                throw Occupied(path: path)
            }
            if let parent = Files.parent(of: place) { try Files.makeDirectories(parent) }
            let temporary = place + ".amorce-new"
            try prepare(item.entry, release: item.release, at: temporary)
            renames.append((temporary, place))
        }
        for (from, to) in renames { try Files.rename(from, to: to) }
        for path in removed { try Files.remove(layout.path(path)) }
        let touched = Set((renames.map(\.to) + removed.map(layout.path)).compactMap(Files.parent(of:)))
        for folder in touched where Files.exists(folder) { try Files.synchronizeDirectory(folder) }

        try pointCurrent(at: target?.identifier)
    }

    private func pointCurrent(at identifier: String?) throws {
        let current = layout.current(store.app)
        if let identifier {
            let target = "releases/" + identifier
            if Files.linkTarget(current) != target { try Files.replaceSymlink(target: target, at: current) }
        } else if try Files.status(current)?.kind == .symlink {
            try Files.remove(current)
        }
        try Files.synchronizeDirectory(layout.site(store.app))
    }

    /// Whether the host already has exactly this.
    func isInPlace(_ entry: ConfigurationEntry) throws -> Bool {
        let place = layout.path(entry.path)
        guard let status = try Files.status(place) else { return false }
        switch entry.kind {
        case .symlink: return status.kind == .symlink && Files.linkTarget(place) == entry.target
        case .file:
            guard status.kind == .regular, status.mode == entry.mode else { return false }
            if Host.isSuperuser && (status.owner != entry.owner || status.group != entry.group) { return false }
            return Digest.sha256(try FileReading.bytes(place, limit: 64 << 20)).hex == entry.digest
        }
    }

    private func prepare(_ entry: ConfigurationEntry, release: String?, at temporary: String) throws {
        // A symlink has no bytes.
        let bytes =
            try entry.kind == .symlink
            ? []
            : release.map { try store.contents(of: entry, in: $0) }
                ?? FileReading.bytes(originals + "/" + entry.digest, limit: 64 << 20)
        try entry.prepare(bytes, at: temporary)
    }

    // MARK: originals

    private func originalFile(_ path: String) -> String {
        originals + "/" + Digest.sha256(path.utf8).hex + ".json"
    }

    private func original(_ path: String) throws -> Original? {
        guard let bytes = try FileReading.bytesIfPresent(originalFile(path), limit: 1 << 20) else { return nil }
        return try RunRecorder.decode(Original.self, from: bytes)
    }

    /// Before a path is taken over for the first time: what stands there now. Kept for good, since the first look is the one
    /// that saw the image's own file.
    private func rememberOriginal(_ path: String) throws {
        if Files.exists(originalFile(path)) { return }
        try Files.makeDirectories(originals, mode: 0o700)
        let place = layout.path(path)
        var entry: ConfigurationEntry?
        if let status = try Files.status(place) {
            switch status.kind {
            case .symlink: entry = ConfigurationEntry(path: path, target: Files.linkTarget(place) ?? "")
            case .regular:
                let bytes = try FileReading.bytes(place, limit: 64 << 20)
                let digest = Digest.sha256(bytes).hex
                try AtomicFile.write(bytes, to: originals + "/" + digest, mode: 0o600)
                entry = ConfigurationEntry(
                    path: path, mode: status.mode, owner: status.owner, group: status.group, digest: digest)
            case .directory, .other: throw Occupied(path: path)
            }
        }
        try AtomicFile.write(
            try RunRecorder.encode(Original(path: path, entry: entry)),
            to: originalFile(path), mode: 0o600)
    }
}
