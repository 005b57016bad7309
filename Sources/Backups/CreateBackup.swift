public import HostSystem

/// Makes a backup of a tree: one `.tar.zst` of independent frames, and its manifest, written last. docs/backups.md describes the
/// format.
public struct CreateBackup: Sendable {
    public struct Options: Sendable {
        public var app: String
        public var environment: String
        public var madeBy: String
        /// Whether a path of the tree is left out, with all below it. Called from any thread.
        public var isExcluded: @Sendable (_ path: [UInt8], _ isDirectory: Bool) -> Bool = { _, _ in false }
        /// Whether nothing is taken over from an earlier backup.
        public var isFull = false
        public var threads: Int
        public var connections: Int
        /// Seconds since 1970.
        public var now: Int64

        public init(app: String, environment: String, madeBy: String, threads: Int, connections: Int, now: Int64) {
            self.app = app
            self.environment = environment
            self.madeBy = madeBy
            self.threads = threads
            self.connections = connections
            self.now = now
        }
    }

    public struct Result: Sendable, Encodable {
        public var key: String
        /// Of the object and, packed, of the manifest.
        public var size: Int64 = 0
        public var manifestSize: Int64 = 0
        /// Sent over the network; `copied` came from an earlier backup, inside the store.
        public var sent: Int64 = 0
        public var copied: Int64 = 0
        /// The backup whose frames were taken over.
        public var copiedFrom: String?
        public var files = 0
        public var links = 0
        public var directories = 0
        /// Of the files, unpacked.
        public var bytes: Int64 = 0
        public var excluded = 0
        /// Sockets, devices and the like: how many, and the first hundred by name.
        public var special = 0
        public var specialNames: [String] = []
        public var mountPoints: [String] = []
        /// Symlinks that lead out of the folder; a restore would refuse them.
        public var leadingOut: [String] = []
        /// Gone before they were read: how many, and the first hundred by name; and what changed each time it was read.
        public var vanished = 0
        public var vanishedNames: [String] = []
        public var changed: [String] = []
    }

    /// The tree holds no file: such a backup would empty a site.
    public struct Empty: Error, Sendable, Equatable, CustomStringConvertible {
        public let path: String
        public var description: String { "\(path): it holds no file to back up" }
    }

    /// More than a tenth of the files and folders went while they were read: what is removed as a whole would soon be the newest backup.
    public struct Vanishing: Error, Sendable, Equatable, CustomStringConvertible {
        public let path: String
        public let gone: Int
        public let of: Int
        public var description: String {
            "\(path): \(gone) of \(of) files and folders were gone before they could be read; it is being removed or unmounted"
        }
    }

    /// No more is in one frame, uncompressed; larger files come in pieces of that size.
    static let frameSize = 2 << 20
    static let pieceSize = frameSize
    private static let filesPerFrame = 4096
    /// So many gone files are never a tree that is being removed.
    private static let fewGone = 20
    /// The name of a file at the root of the tree with patterns of what is left out.
    public static let ignoreFile = ".amorceignore"

    private let store: any WritableStore
    private let log: Log

    public init(store: any WritableStore, log: Log) {
        self.store = store
        self.log = log
    }

    /// Blocking; `progress` is called on the calling thread, with bytes and files of the tree. Throws `Empty`, `Vanishing`,
    /// `StoreConflict` where backups of this second and the next ones are there, `HostError` of the tree, `StopReason`, and what
    /// the store throws; then nothing is left in the store that passes for a backup.
    public func create(
        from source: SourceTree, prefix: String, options: Options, stop: StopFlag, progress: @escaping ProgressHandler
    ) throws -> Result {
        let tree = try ScannedTree(
            source, options: ScannedTree.Options(threads: options.threads, isExcluded: options.isExcluded), stop: stop)
        guard (0..<tree.count).contains(where: { tree[$0].kind == .regular }) else {
            throw Empty(path: Printable.text(source.path))
        }
        do {
            return try create(source, tree, prefix, options, isFull: options.isFull, stop, progress)
        } catch let error as CopySourceGone {
            log.warning("\(error); all is sent anew")
            return try create(source, tree, prefix, options, isFull: true, stop, progress)
        }
    }

    private func create(
        _ source: SourceTree, _ tree: ScannedTree, _ prefix: String, _ options: Options, isFull: Bool, _ stop: StopFlag,
        _ progress: @escaping ProgressHandler
    ) throws -> Result {
        var result = Result(key: "")
        let writer = try ManifestWriter()
        var covered = [Bool](repeating: false, count: tree.count)
        var runs: [Range<Int64>] = []
        var earlier: StoredObject?
        if !isFull, let found = try newest(prefix, options, stop) {
            let taken = try found.take(for: tree, rules: store.partRules, writer: writer)
            if !taken.runs.isEmpty {
                (covered, runs, earlier) = (taken.covered, taken.runs, found.object)
                result.copiedFrom = found.object.key
            }
        }
        let plan = Plan(tree, covered: covered)
        let leadingOut = Set(
            (0..<tree.count).filter { index in
                tree[index].kind == .symlink && (tree.leadsOut(index) || source.leadsOut(tree.path(index)))
            })
        let (upload, time) = try begin(prefix, options.now, stop)
        let key = prefix + BackupKey.name(at: time)
        result.key = key
        let parts: PartWriter
        do {
            parts = try PartWriter(
                upload, rules: store.partRules, most: plan.mostBytes, connections: options.connections, stop: stop)
        } catch {
            upload.abort()
            throw error
        }
        do {
            if let earlier { for run in runs { try parts.copy(run, of: earlier) } }
            let gone = try pack(source, tree, plan, options, parts, writer, &result, stop, progress)
            if writer.files == 0 { throw Empty(path: Printable.text(source.path)) }
            try checkGone(source, tree, gone, files: writer.files)
            try addLast(source, tree, gone, leadingOut: leadingOut, parts, writer)
            _ = try parts.finish()
        } catch {
            parts.abort(error)
            throw error
        }
        var header = BackupHeader()
        header.app = options.app
        header.environment = options.environment
        header.time = time
        header.source = source.path
        header.madeBy = options.madeBy
        header.copied = parts.copied
        let manifest = try writer.finish(header)
        try store.put(key: BackupKey.manifest(of: key), bytes: manifest.packed, stop: stop)
        result.size = manifest.header.size
        result.manifestSize = Int64(manifest.packed.count)
        result.sent = parts.sent + result.manifestSize
        result.copied = parts.copied
        (result.files, result.links, result.directories) = (writer.files, writer.links, writer.directories)
        result.bytes = writer.bytes
        result.excluded = tree.passedOver.excluded
        result.special = tree.passedOver.specialCount
        result.specialNames = tree.passedOver.special
        result.mountPoints = tree.passedOver.mountPoints
        result.vanished += tree.passedOver.vanished
        result.leadingOut = leadingOut.sorted().map { Printable.text(tree.path($0)) }
        return result
    }

    private func checkGone(_ source: SourceTree, _ tree: ScannedTree, _ gone: Gone, files: Int) throws {
        let directories = (0..<tree.count).count(where: { tree[$0].kind == .directory })
        let missing = gone.names.count + tree.passedOver.vanishedDirectoryCount
        let all = files + gone.names.count + directories
        if missing > Self.fewGone && missing * 10 > all {
            throw Vanishing(path: Printable.text(source.path), gone: missing, of: all)
        }
    }

    /// An upload under the name of this second, or of one of the next few where another backup has that.
    private func begin(
        _ prefix: String, _ now: Int64, _ stop: StopFlag
    ) throws -> (upload: any ObjectUpload, time: Int64) {
        var time = now
        while true {
            do {
                return (try store.beginUpload(key: prefix + BackupKey.name(at: time), stop: stop), time)
            } catch let error as StoreConflict {
                time += 1
                if time > now + 5 { throw error }
            }
        }
    }

    /// The newest complete backup of the same application and environment, or nil where there is none that can be used, or none may
    /// be read.
    private func newest(_ prefix: String, _ options: Options, _ stop: StopFlag) throws -> EarlierBackup? {
        do {
            let objects = try store.list(prefix: prefix, stop: stop)
            let reader = BackupReader(store: store)
            let keys = Set(objects.map(\.key))
            let manifests = objects.filter { manifest in
                guard let key = BackupKey.backup(ofManifest: manifest.key) else { return false }
                return !key.dropFirst(prefix.count).contains("/") && keys.contains(key)
            }
            for manifest in manifests.sorted(by: { $0.key > $1.key }) {
                do {
                    // Of another application a file of the same name, time and size need not be the same.
                    let header = try reader.header(manifest, stop: stop)
                    guard (header.app, header.environment) == (options.app, options.environment),
                        let key = BackupKey.backup(ofManifest: manifest.key),
                        let pinned = try store.stat(key: key, stop: stop)
                    else { continue }
                    if header.time > options.now {
                        log.warning(
                            "\(Printable.text(key)) is stamped later than now, and will be taken for newer: check the clock"
                        )
                    }
                    return try EarlierBackup(pinned, manifest: reader.manifest(of: pinned, stop: stop))
                } catch let error as RestoreError {
                    log.warning("an earlier backup is not used: \(error)")
                } catch let error as ArchiveError {
                    log.warning("\(Printable.text(manifest.key)) is not used: \(error)")
                }
            }
        } catch let error as StopReason {
            throw error
        } catch {
            // A role that may put alone makes a full backup.
            log.warning("no earlier backup can be read, so all is sent: \(error)")
        }
        return nil
    }

    // MARK: Files

    /// What is packed, in order: frames of whole files, then the pieces of large ones.
    private struct Plan: Sendable {
        enum Job: Sendable {
            case files([Int], isStored: Bool)
            case piece(Int, offset: Int64, count: Int, isStored: Bool)
        }

        private(set) var jobs: [Job] = []
        private(set) var mostBytes: Int64 = 0
        /// Of the whole tree, what is taken over included.
        private(set) var files = 0
        private(set) var bytes: Int64 = 0

        init(_ tree: ScannedTree, covered: [Bool]) {
            // What is compressed already goes into frames of its own, which cost no work.
            var open: [(files: [Int], bytes: Int64)] = [([], 0), ([], 0)]
            var pieces: [Job] = []
            for index in 0..<tree.count where tree[index].kind == .regular {
                let size = tree[index].size
                files += 1
                bytes += size
                if covered[index] { continue }
                let isStored = PackedNames.isCompressed(tree.path(index))
                mostBytes += size + 2048
                if size > Int64(CreateBackup.pieceSize) {
                    for offset in stride(from: 0, to: size, by: CreateBackup.pieceSize) {
                        let count = Int(min(size - offset, Int64(CreateBackup.pieceSize)))
                        pieces.append(.piece(index, offset: offset, count: count, isStored: isStored))
                    }
                    continue
                }
                let group = isStored ? 1 : 0
                if open[group].bytes + size > Int64(CreateBackup.frameSize) && !open[group].files.isEmpty {
                    jobs.append(.files(open[group].files, isStored: isStored))
                    open[group] = ([], 0)
                }
                open[group].files.append(index)
                open[group].bytes += size + 512
                if open[group].files.count >= CreateBackup.filesPerFrame {
                    jobs.append(.files(open[group].files, isStored: isStored))
                    open[group] = ([], 0)
                }
            }
            for (group, rest) in open.enumerated() where !rest.files.isEmpty {
                jobs.append(.files(rest.files, isStored: group == 1))
            }
            jobs += pieces
            // Links, directories and the end are far smaller than that.
            mostBytes += 64 << 20
        }
    }

    private func pack(
        _ source: SourceTree, _ tree: ScannedTree, _ plan: Plan, _ options: Options, _ parts: PartWriter,
        _ writer: ManifestWriter, _ result: inout Result, _ stop: StopFlag, _ progress: @escaping ProgressHandler
    ) throws -> Gone {
        var gone = Gone()
        func add(_ frame: PackedFrame) throws {
            gone.names.formUnion(frame.vanished)
            gone.detached.formUnion(frame.detached)
            for name in frame.changed { result.changed.append(Printable.text(name)) }
            if frame.bytes.isEmpty { return }
            try parts.append(frame.bytes)
            try writer.add(
                Self.described(frame, at: writer.position), members: frame.members.map { ManifestMember($0) })
            progress(
                Progress(
                    bytes: writer.bytes, totalBytes: plan.bytes, items: writer.files, totalItems: plan.files))
        }
        let large = LargeFiles()
        let work = try OrderedWork<PackedFrame>(
            "pack", jobs: plan.jobs.count, threads: options.threads, window: options.threads * 2
        ) {
            let packer = try FramePacker(source, tree, large: large)
            return { number in
                switch plan.jobs[number] {
                case .files(let files, let isStored):
                    try packer.pack(files: files, level: Self.level(isStored))
                case .piece(let index, let offset, let count, let isStored):
                    try packer.pack(pieceOf: index, offset: offset, count: count, level: Self.level(isStored))
                }
            }
        }
        while let frame = try work.next(stop: stop) { try add(frame) }
        // Another name of a file that is gone by its first one, or is another file by it, still has all that it held.
        if !gone.names.isEmpty || !gone.detached.isEmpty {
            let packer = try FramePacker(source, tree, large: large)
            for index in 0..<tree.count where tree[index].kind == .hardLink {
                let target = Int(tree[index].size)
                if gone.replacements[target] != nil { continue }
                if !gone.detached.contains(target) && !gone.names.contains(tree.path(target)) { continue }
                try stop.check()
                let size = tree.fileSize(index)
                if size <= Int64(Self.pieceSize) {
                    try add(try packer.pack(files: [index], level: Self.level(false)))
                } else {
                    for offset in stride(from: 0, to: size, by: Self.pieceSize) {
                        let count = Int(min(size - offset, Int64(Self.pieceSize)))
                        try add(try packer.pack(pieceOf: index, offset: offset, count: count, level: Self.level(false)))
                    }
                }
                if !gone.names.contains(tree.path(index)) { gone.replacements[target] = index }
            }
        }
        result.vanished = gone.names.count
        result.vanishedNames =
            gone.names.prefix(100).map { Printable.text($0) }.sorted()
            + tree.passedOver.vanishedDirectories
        return gone
    }

    /// Files that vanished before they were read, and the hard links to them that are the files now, by the numbers in the tree.
    private struct Gone {
        var names: Set<[UInt8]> = []
        /// First names of hard links that are another file by now, by their numbers in the tree.
        var detached: Set<Int> = []
        var replacements: [Int: Int] = [:]
    }

    /// zstd's default, or next to no search for matches.
    private static func level(_ isStored: Bool) -> Int { isStored ? -100 : 3 }

    // MARK: Links and directories

    /// Behind the files, so that tar finds a hard link's target and sets a directory's time last.
    private func addLast(
        _ source: SourceTree, _ tree: ScannedTree, _ gone: Gone, leadingOut: Set<Int>, _ parts: PartWriter,
        _ writer: ManifestWriter
    ) throws {
        let packer = try FramePacker(source, tree, large: LargeFiles())
        var headers: [UInt8] = []
        func flush() throws {
            let frame = try packer.pack(headers: headers, level: Self.level(false))
            try parts.append(frame.bytes)
            try writer.add(headers: Self.described(frame, at: writer.position))
            headers = []
        }
        // Directories deepest first: tar sets the time of one when the next entry does not lie in it, and an empty one that is made
        // in it later would change it.
        try Self.last(of: tree, gone, leadingOut, deepestFirst: true) { member, _ in
            headers += member.header
            if headers.count >= Self.frameSize { try flush() }
        }
        headers += TarMember.endMark
        try flush()
        try Self.last(of: tree, gone, leadingOut) { _, last in try writer.add(last) }
        try writer.add(.root(mode: source.mode, modified: source.modified))
    }

    /// Symlinks, hard links, directories: as tar has them, and as the manifest does.
    private static func last(
        of tree: ScannedTree, _ gone: Gone, _ leadingOut: Set<Int>, deepestFirst: Bool = false,
        _ body: (TarMember, FrameExtraction.Last) throws -> Void
    ) throws {
        for kind in [ScannedTree.Kind.symlink, .hardLink, .directory] {
            for number in 0..<tree.count {
                let index = deepestFirst && kind == .directory ? tree.count - 1 - number : number
                if tree[index].kind != kind { continue }
                let path = tree.path(index)
                let entry = tree[index]
                let modified = entry.modified
                switch kind {
                case .symlink:
                    let target = tree.linkTarget(index)
                    if leadingOut.contains(index) { continue }
                    try body(
                        TarMember(path: path, kind: .symlink(target: target), mode: 0o777, modified: modified),
                        .symlink(path: path, target: target, modified: modified))
                case .hardLink:
                    let file = gone.replacements[Int(entry.size)] ?? Int(entry.size)
                    let target = tree.path(file)
                    if file == index || gone.names.contains(target) || gone.names.contains(path) { continue }
                    try body(
                        TarMember(path: path, kind: .hardLink(target: target), mode: entry.mode, modified: modified),
                        .hardLink(path: path, target: target))
                case .directory:
                    try body(
                        TarMember(path: path, kind: .directory, mode: entry.mode, modified: modified),
                        .directory(path: path, mode: entry.mode, modified: modified))
                case .regular: break
                }
            }
        }
    }

    private static func described(_ frame: PackedFrame, at offset: Int64) -> FrameExtraction.Frame {
        FrameExtraction.Frame(
            offset: offset, length: frame.bytes.count, unpacked: frame.unpacked, sha256: frame.sha256,
            files: frame.members.count, contents: [])
    }
}

/// Names of files that are compressed already.
enum PackedNames {
    private static let endings: Set<String> = [
        "7z", "aac", "apk", "avi", "avif", "br", "bz2", "deb", "docx", "flac", "flv", "gif", "gz", "heic", "heif",
        "jar",
        "jpeg", "jpg", "m4a", "m4v", "mkv", "mov", "mp3", "mp4", "mpeg", "mpg", "odt", "ogg", "ogv", "opus", "phar",
        "png",
        "pptx", "rar", "rpm", "tgz", "txz", "webm", "webp", "woff", "woff2", "xlsx", "xz", "zip", "zst",
    ]

    static func isCompressed(_ path: [UInt8]) -> Bool {
        guard let dot = path.lastIndex(of: UInt8(ascii: ".")), path.count - dot <= 6 else { return false }
        return endings.contains(String(decoding: path[(dot + 1)...], as: UTF8.self).lowercased())
    }
}
