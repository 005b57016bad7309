internal import CloudPlatform
public import HostSystem

/// What a boot or a sync would do, without doing it: the rsync plan and the difference in every rendered file, secrets hidden.
public struct Preview: Sendable, Encodable {
    public struct File: Sendable, Encodable {
        public enum Change: String, Sendable, Encodable {
            case create, change, remove, same
        }

        public let path: String
        public let change: Change
        /// A unified diff; empty where nothing that may be shown differs.
        public var diff: [String]
        /// What the diff cannot show.
        public var note: String?
    }

    public let app: String
    public let environment: String
    /// The live release; nil before the first one.
    public let release: String?
    /// The backup that a boot would restore.
    public var backup: String?
    public var delta: RsyncPlan?
    /// Why there is no plan of the delta, where there is none.
    public var deltaNote: String?
    public let files: [File]

    public var changesAnything: Bool {
        backup != nil || delta.map { !$0.isEmpty } ?? false || files.contains { $0.change != .same }
    }

    /// Identify, settle and render, for the live release or the one that would be made, and nothing else. Takes no lock and
    /// changes nothing.
    public static func make(
        _ options: RunOptions, includingData: Bool, transport: any HTTPTransport, stop: StopFlag,
        observer: @escaping @Sendable (RunEvent) -> Void
    ) throws(BootFailure) -> (preview: Preview, files: [RenderedFile]) {
        let session = PreviewSession(options: options, transport: transport, stop: stop, observer: observer)
        return try session.make(includingData: includingData)
    }

    /// The merged settings with the origin of each value, without anything that follows from them.
    public static func settings(
        _ options: RunOptions, transport: any HTTPTransport, stop: StopFlag,
        observer: @escaping @Sendable (RunEvent) -> Void
    ) throws(BootFailure) -> SettledSettings {
        try PreviewSession(options: options, transport: transport, stop: stop, observer: observer).settings()
    }
}

/// The steps of a run that change nothing, each error as the failure of its step.
struct PreviewSession {
    let options: RunOptions
    let transport: any HTTPTransport
    let stop: StopFlag
    let log: Log

    init(
        options: RunOptions, transport: any HTTPTransport, stop: StopFlag,
        observer: @escaping @Sendable (RunEvent) -> Void
    ) {
        self.options = options
        self.transport = transport
        self.stop = stop
        log = Log { observer(.message($0, $1)) }
    }

    func settings() throws(BootFailure) -> SettledSettings {
        let (instance, access) = try identify()
        return try BootFailure.inStep(.settle, "merging the settings") {
            try Front.mergedSettings(instance, options: options, access: access, stop: stop)
        }
    }

    private func identify() throws(BootFailure) -> (InstanceData, StoreAccess) {
        try BootFailure.inStep(.identify, "asking who this instance is") {
            try Front.identify(options, transport: transport, log: log, stop: stop)
        }
    }

    func make(includingData: Bool) throws(BootFailure) -> (preview: Preview, files: [RenderedFile]) {
        let (instance, access) = try identify()
        let front = try BootFailure.inStep(.settle, "merging the settings") {
            try Front.settle(instance, options: options, access: access, transport: transport, log: log, stop: stop)
        }
        let live = try BootFailure.inStep(.recover, "reading the records of releases") { () throws -> ReleaseRecord? in
            try front.store.live().flatMap { try front.store.record($0) }
        }
        let rendered = try BootFailure.inStep(.render, "rendering the templates") { () throws -> [RenderedFile] in
            // Before the first release, what it will be called and answer is not known yet.
            let record =
                live
                ?? ReleaseRecord(
                    identifier: UTCStamp(secondsSince1970: Host.now).digits, app: front.settings.app,
                    environment: front.settings.environment, created: Host.now, token: "not-made-yet", base: nil)
            return try front.render(record, log: log)
        }
        let files = try BootFailure.inStep(.render, "comparing with the present files") {
            try FileComparison(front: front, live: live).compare(rendered)
        }
        var preview = Preview(
            app: front.settings.app, environment: front.settings.environment, release: live?.identifier, files: files)
        if includingData { try addData(to: &preview, front, live) }
        return (preview, rendered)
    }

    private func addData(to preview: inout Preview, _ front: Front, _ live: ReleaseRecord?) throws(BootFailure) {
        if live == nil {
            preview.backup = try BootFailure.inStep(
                .restore, "looking for the newest backup in \(front.backupLocation)"
            ) {
                try front.backupPlaces(log: log).newest(stop: stop).object.key
            }
        }
        guard let settings = front.settings.delta else {
            preview.deltaNote = "the settings name no delta"
            return
        }
        guard let live else {
            preview.deltaNote = "the delta is known once the backup is restored"
            return
        }
        preview.delta = try BootFailure.inStep(.sync, "planning the delta from \(settings.from)") {
            try front.syncDelta(settings, log: log).plan(
                into: options.layout.release(front.settings.app, live.identifier), protecting: front.protectedPaths,
                stop: stop)
        }
    }
}

/// Compares rendered files with what the host has.
struct FileComparison {
    let front: Front
    let live: ReleaseRecord?
    private static let sizeLimit = 64 << 20

    func compare(_ files: [RenderedFile]) throws -> [Preview.File] {
        let paths = Set(files.map(\.entry.path))
        let gone = (live?.configuration ?? []).filter { !paths.contains($0.path) }
        return try files.map(compare) + gone.map { Preview.File(path: $0.path, change: .remove, diff: [], note: nil) }
    }

    private func compare(_ file: RenderedFile) throws -> Preview.File {
        let entry = file.entry
        let place = front.layout.path(entry.path)
        guard let status = try Files.status(place) else {
            return Preview.File(
                path: entry.path, change: .create,
                diff: entry.kind == .symlink
                    ? ["+ -> \(Printable.text(entry.target))"]
                    : TextDiff.unified("", entry.shownText(file.bytes), oldName: "/dev/null", newName: entry.path),
                note: nil)
        }
        if try ConfigurationSwitch(store: front.store).isInPlace(entry) {
            return Preview.File(path: entry.path, change: .same, diff: [], note: nil)
        }
        var result = Preview.File(path: entry.path, change: .change, diff: [], note: nil)
        if entry.kind == .symlink {
            result.diff = [
                "- -> \(Printable.text(Files.linkTarget(place) ?? "(no symlink)"))",
                "+ -> \(Printable.text(entry.target))",
            ]
            return result
        }
        guard status.kind == .regular else {
            result.note = "something that is no file stands there"
            return result
        }
        let present = try FileReading.bytes(place, limit: Self.sizeLimit)
        let known = ((live?.configuration ?? []) + (live?.rendered ?? [])).first {
            $0.path == entry.path && $0.digest == Digest.sha256(present).hex
        }
        guard let known else {
            // Where secrets stand in it nobody can say.
            result.note = "the present file is not as amorce wrote it, and is not shown"
            result.diff = TextDiff.unified("", entry.shownText(file.bytes), oldName: "(not shown)", newName: entry.path)
            return result
        }
        let old = known.shownText(present)
        result.diff = TextDiff.unified(old, entry.shownText(file.bytes), oldName: entry.path, newName: entry.path)
        if result.diff.isEmpty {
            result.note = present == file.bytes ? "its mode or owner changes" : "a secret in it changes"
        }
        return result
    }
}
