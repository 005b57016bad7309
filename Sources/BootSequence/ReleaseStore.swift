public import HostSystem

/// The releases of one application on this host: their records, which of them is live, and the journal of a switch under way.
///
///     /var/lib/amorce/live.json                  which release is live, by record
///     /var/lib/amorce/switch.json                only while a switch is neither proved nor taken back
///     /var/lib/amorce/releases/ID/record.json    what the release is made of
///     /var/lib/amorce/releases/ID/files/SHA256   bytes of its rendered configuration, 0600
///     /var/lib/amorce/originals/…                what stood in a rendered file's place before the first release
///
/// Used by the run that holds the lock, on one thread; readers without the lock (`status`) see whole files only.
public struct ReleaseStore: Sendable {
    struct Live: Codable {
        let app: String
        let release: String
    }

    /// Written before the first file is touched, removed after the proof. Whoever finds it takes the switch back.
    struct SwitchJournal: Codable, Equatable {
        let app: String
        let from: String?
        let to: String
        /// Who must load what is put back.
        let services: [Service]
    }

    public let layout: HostLayout
    public let app: String

    public init(layout: HostLayout, app: String) {
        self.layout = layout
        self.app = app
    }

    private var releasesState: String { layout.state + "/releases" }
    private var liveFile: String { layout.state + "/live.json" }
    private var journalFile: String { layout.state + "/switch.json" }
    func stateFolder(_ identifier: String) -> String { releasesState + "/" + identifier }

    /// The folders that everything else relies on.
    public func prepareFolders() throws {
        try Files.makeDirectories(layout.path("/var/lib"))
        try Files.makeDirectories(layout.state, mode: 0o700)
        try Files.changeMode(layout.state, 0o700)
        try Files.makeDirectories(releasesState, mode: 0o700)
        try Files.makeDirectories(layout.releases(app))
        try Files.makeDirectories(layout.shared(app))
    }

    /// Any app's live release: what a front serves does not depend on the settings that can be read now.
    public static func liveApp(layout: HostLayout) throws -> String? {
        try read(Live.self, layout.state + "/live.json")?.app
            ?? read(SwitchJournal.self, layout.state + "/switch.json")?.app
    }

    // MARK: records

    /// A new identifier: the UTC time as Capistrano writes it, made unique.
    public func newIdentifier(now: Int64) throws -> String {
        let stamp = UTCStamp(secondsSince1970: now).digits
        var candidate = stamp
        var number = 2
        while Files.exists(layout.release(app, candidate)) || Files.exists(stateFolder(candidate)) {
            candidate = "\(stamp)-\(number)"
            number += 1
        }
        return candidate
    }

    public func record(_ identifier: String) throws -> ReleaseRecord? {
        guard Self.isIdentifier(identifier) else { return nil }
        return try Self.read(ReleaseRecord.self, stateFolder(identifier) + "/record.json")
    }

    /// Every release with a record and its folder, oldest first.
    public func records() throws -> [ReleaseRecord] {
        try Files.names(in: releasesState).compactMap { name in
            guard let record = try record(name), record.app == app, Files.exists(layout.release(app, name)) else {
                return nil
            }
            return record
        }
    }

    /// Makes the release real: its files are on disk before its record says so.
    public func save(_ record: ReleaseRecord, contents: [String: [UInt8]] = [:]) throws {
        let folder = stateFolder(record.identifier)
        try Files.makeDirectories(folder + "/files", mode: 0o700)
        for (digest, bytes) in contents { try AtomicFile.write(bytes, to: folder + "/files/" + digest, mode: 0o600) }
        try AtomicFile.write(try RunRecorder.encode(record), to: folder + "/record.json", mode: 0o600)
    }

    func contents(of entry: ConfigurationEntry, in identifier: String) throws -> [UInt8] {
        try FileReading.bytes(stateFolder(identifier) + "/files/" + entry.digest, limit: 64 << 20)
    }

    /// A rendered file of a release, of the host or inside the release. Empty where it is gone from the release.
    func bytes(of entry: ConfigurationEntry, in record: ReleaseRecord) throws -> [UInt8] {
        let isOfHost = record.configuration.contains { $0.path == entry.path }
        if isOfHost { return try contents(of: entry, in: record.identifier) }
        return try FileReading.bytesIfPresent(layout.path(entry.path), limit: 64 << 20) ?? []
    }

    /// Removes the record first: a release that is half removed is never offered for a rollback, and what is left of it is
    /// removed as unfinished.
    public func remove(_ identifier: String) throws {
        guard Self.isIdentifier(identifier) else { return }
        if Files.exists(stateFolder(identifier)) {
            try Files.remove(stateFolder(identifier) + "/record.json")
            try Files.synchronizeDirectory(stateFolder(identifier))
        }
        try Files.removeTree(layout.release(app, identifier))
        try Files.removeTree(stateFolder(identifier))
    }

    /// Removes what an interrupted run left: release folders without a record, records without a folder. What `current` points
    /// to stays, record or not: where the state directory was lost, visitors are served from a folder that no record knows.
    public func removeUnfinished() throws -> [String] {
        let recorded = Set(try records().map(\.identifier))
        let served = Files.linkTarget(layout.current(app)).map { Files.name(of: $0) }
        let leftovers = Set(try Files.names(in: layout.releases(app)) + Files.names(in: releasesState))
            .filter { name in
                Self.isIdentifier(name) && !recorded.contains(name) && name != served
                    // Another application's record is not this one's to remove.
                    && (try? record(name))?.flatMap({ $0.app == app ? nil : $0 }) == nil
            }
        for identifier in leftovers.sorted() { try remove(identifier) }
        return leftovers.sorted()
    }

    // MARK: a restore under way

    private var unfinishedDirectory: String { layout.releases(app) + "/.restoring" }
    private var unfinishedJournal: String { layout.state + "/restoring-\(app).frames" }

    /// Where a backup is restored before it is a release, and where it is kept how far that has come. What an interrupted run left
    /// is there still; whoever restores makes what it can of it.
    func beginRestore() throws -> (directory: String, journal: String) {
        if !Files.exists(unfinishedDirectory) { try Files.makeNewDirectory(unfinishedDirectory, mode: 0o700) }
        return (unfinishedDirectory, unfinishedJournal)
    }

    /// Runs a restore; what a stopped one of a framed backup has brought stays for the next run, all else is
    /// removed.
    func keepingUnfinished<Value>(_ body: () throws -> Value) throws -> Value {
        do {
            return try body()
        } catch let reason as StopReason where Files.exists(unfinishedJournal) {
            throw reason
        } catch {
            try? removeUnfinishedRestore()
            throw error
        }
    }

    private func removeUnfinishedRestore() throws {
        // The journal first: what is half removed must not be gone on with.
        try Files.remove(unfinishedJournal)
        try Files.removeTree(unfinishedDirectory)
    }

    /// Keeps the live release, its predecessor chain and the newest proved ones, `count` in all; removes the others.
    public func prune(keeping count: Int) throws -> [String] {
        let all = try records()
        var kept: [String] = []
        var next = try live()
        while let identifier = next, kept.count < max(1, count), !kept.contains(identifier) {
            guard let record = all.first(where: { $0.identifier == identifier }) else { break }
            kept.append(identifier)
            next = record.previous
        }
        for record in all.reversed() where record.state == .proved && kept.count < count {
            if !kept.contains(record.identifier) { kept.append(record.identifier) }
        }
        let removed = all.map(\.identifier).filter { !kept.contains($0) }
        for identifier in removed { try remove(identifier) }
        try removeUnfinishedRestore()
        return removed
    }

    // MARK: what is live

    /// The release that is live by record; nil before the first one, and for another application.
    public func live() throws -> String? {
        guard let live = try Self.read(Live.self, liveFile), live.app == app else { return nil }
        return live.release
    }

    func setLive(_ identifier: String?) throws {
        if let identifier {
            try AtomicFile.write(
                try RunRecorder.encode(Live(app: app, release: identifier)), to: liveFile, mode: 0o600)
        } else {
            try Files.remove(liveFile)
        }
    }

    func journal() throws -> SwitchJournal? { try Self.read(SwitchJournal.self, journalFile) }

    func openJournal(from: String?, to: String, services: [Service]) throws {
        try AtomicFile.write(
            try RunRecorder.encode(SwitchJournal(app: app, from: from, to: to, services: services)), to: journalFile,
            mode: 0o600)
    }

    func closeJournal() throws {
        try Files.remove(journalFile)
        try Files.synchronizeDirectory(layout.state)
    }

    private static func read<Value: Decodable>(_ type: Value.Type, _ path: String) throws -> Value? {
        guard let bytes = try FileReading.bytesIfPresent(path, limit: 64 << 20) else { return nil }
        return try RunRecorder.decode(type, from: bytes)
    }

    static func isIdentifier(_ text: String) -> Bool {
        text.utf8.count >= 14 && text.utf8.prefix(14).allSatisfy { (0x30...0x39).contains($0) }
            && text.utf8.dropFirst(14).allSatisfy { $0 == 0x2d || (0x30...0x39).contains($0) }
    }
}
