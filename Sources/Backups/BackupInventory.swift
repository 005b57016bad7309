public import HostSystem

/// What lies below a prefix, for a person to read and for pruning.
public struct BackupInventory: Sendable {
    public struct Item: Sendable, Equatable {
        public enum State: Sendable, Equatable, Encodable {
            case complete
            /// Its manifest is there and cannot be used: damaged, of a later version, or gone while the list was made. It may
            /// be a backup all the same, so it is never removed.
            case damaged(reason: String)
            /// Its manifest is missing: it was interrupted, or is being made just now.
            case incomplete
            /// A manifest that belongs to no object: it was being removed.
            case leftover
            /// An archive that something else made; complete by the rule of `BackupChoice`.
            case archive

            public var name: String {
                switch self {
                case .complete: "complete"
                case .damaged: "damaged"
                case .incomplete: "incomplete"
                case .leftover: "leftover"
                case .archive: "archive"
                }
            }

            public func encode(to encoder: any Encoder) throws {
                var container = encoder.singleValueContainer()
                try container.encode(name)
            }
        }

        public let object: StoredObject
        public let state: State
        /// Seconds since 1970; nil where neither the name nor the store tells.
        public let time: Int64?
        /// Of a complete backup of amorce's own.
        public let header: BackupHeader?

        /// Which backups belong together: keeping some of them is decided for each group on its own.
        var group: [String] { [header?.app ?? "", header?.environment ?? ""] }
    }

    /// Whether a backup's time is a wrong clock's, as `BackupChoice` has it: it says nothing about which one is the newest.
    public static func isAhead(_ time: Int64, of now: Int64) -> Bool { time > now + BackupChoice.mostAhead }

    private let store: any ObjectStore

    public init(store: any ObjectStore) { self.store = store }

    /// The newest first. Throws what the store throws; one manifest that is damaged or gone spoils no more than its own line.
    public func items(prefix: String, now: Int64, stop: StopFlag) throws -> [Item] {
        let objects = try store.list(prefix: prefix, stop: stop).filter {
            !$0.key.dropFirst(prefix.count).contains("/")
        }
        let byKey = Dictionary(objects.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })
        var items: [Item] = []
        for object in objects {
            if BackupKey.isFramed(object.key) {
                let time = Self.time(of: object)
                guard let manifest = byKey[BackupKey.manifest(of: object.key)] else {
                    items.append(Item(object: object, state: .incomplete, time: time, header: nil))
                    continue
                }
                switch try header(manifest, stop: stop) {
                case .success(let header):
                    items.append(Item(object: object, state: .complete, time: header.time, header: header))
                case .failure(let unusable):
                    let state = Item.State.damaged(reason: unusable.reason)
                    items.append(Item(object: object, state: state, time: time, header: nil))
                }
            } else if let backup = BackupKey.backup(ofManifest: object.key), byKey[backup] == nil {
                items.append(Item(object: object, state: .leftover, time: Self.time(of: object), header: nil))
            }
        }
        if let archives = try? BackupChoice.newest(in: objects, prefix: prefix, now: now, newestWithin: nil) {
            for archive in archives where !BackupKey.isFramed(archive.object.key) {
                items.append(Item(object: archive.object, state: .archive, time: archive.time, header: nil))
            }
        }
        return items.newestFirst
    }

    private struct Unusable: Error {
        let reason: String
    }

    private func header(_ manifest: StoredObject, stop: StopFlag) throws -> Result<BackupHeader, Unusable> {
        do {
            return .success(try BackupReader(store: store).header(manifest, stop: stop))
        } catch let error as RestoreError {
            switch error {
            case .badArchive(_, let reason, _), .unsupported(_, let reason, _):
                return .failure(Unusable(reason: reason))
            default: return .failure(Unusable(reason: error.description))
            }
        } catch let error where !(error is StopReason) {
            // Another one prunes or writes below the prefix at this moment; or the store fails, and then all of it does.
            guard let now = try store.stat(key: manifest.key, stop: stop) else {
                return .failure(Unusable(reason: "its manifest was removed while the list was made"))
            }
            if now.size != manifest.size || now.etag != manifest.etag {
                return .failure(Unusable(reason: "its manifest was replaced while the list was made"))
            }
            throw error
        }
    }

    private static func time(of object: StoredObject) -> Int64? {
        let name = object.key.split(separator: "/").last.map(String.init) ?? object.key
        return NameStamp(in: name)?.seconds ?? object.modified
    }
}

extension [BackupInventory.Item] {
    /// What has no time comes last, and of one time the greater key first.
    fileprivate var newestFirst: Self { sorted { ($0.time ?? 0, $0.object.key) > ($1.time ?? 0, $1.object.key) } }
}

/// Which backups stay: so many of the newest ones, and the newest one of each of the last so many days, weeks and so on that have
/// one (UTC; ISO 8601 weeks, which begin on Monday).
public struct RetentionPolicy: Sendable, Equatable {
    public enum Period: String, Sendable, CaseIterable {
        case last, hourly, daily, weekly, monthly, yearly
    }

    public struct Invalid: Error, Sendable, Equatable, CustomStringConvertible {
        public let description: String
    }

    public private(set) var keep: [Period: Int] = [:]

    /// `keep-daily=7,keep-weekly=4`.
    public init(parsing text: String) throws(Invalid) {
        let known = Period.allCases.map { "keep-\($0.rawValue)" }.joined(separator: ", ")
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let sides = part.split(separator: "=", omittingEmptySubsequences: false).map {
                $0.filter { !$0.isWhitespace }
            }
            guard sides.count == 2, sides[0].hasPrefix("keep-"),
                let period = Period(rawValue: String(sides[0].dropFirst(5)))
            else {
                throw Invalid(description: "\(Printable.text(String(part))): written \(known), each with =NUMBER")
            }
            guard let count = Int(sides[1]), (1...100_000).contains(count) else {
                throw Invalid(description: "\(Printable.text(String(part))): the number is 1 or more")
            }
            if keep.updateValue(count, forKey: period) != nil {
                throw Invalid(description: "keep-\(period.rawValue) is given twice")
            }
        }
    }

    /// Of the times of backups, newest first, those that stay. The newest always does.
    func kept(_ times: [Int64]) -> [Bool] {
        var kept = [Bool](repeating: false, count: times.count)
        if !times.isEmpty { kept[0] = true }
        for (period, count) in keep {
            var seen: [Int64] = []
            for (index, time) in times.enumerated() {
                let bucket = period == .last ? Int64(index) : Self.bucket(time, period)
                if seen.last == bucket { continue }
                if seen.count == count { break }
                seen.append(bucket)
                kept[index] = true
            }
        }
        return kept
    }

    private static func bucket(_ time: Int64, _ period: Period) -> Int64 {
        let day = time >= 0 ? time / 86400 : (time - 86399) / 86400
        let stamp = UTCStamp(secondsSince1970: time)
        switch period {
        case .last, .hourly: return time / 3600
        case .daily: return day
        // 1970-01-01 was a Thursday.
        case .weekly: return (day + 3) / 7
        case .monthly: return Int64(stamp.year * 12 + stamp.month)
        case .yearly: return Int64(stamp.year)
        }
    }
}

/// Removes backups that a policy does not keep. Only what amorce made is ever removed. Backups share nothing, so a kept one needs
/// no other; one that is being made right now has no manifest yet and is left alone for two days. One whose manifest cannot be
/// used, and one of a time more than a day ahead, stays and counts for nothing: as the newest of its group, a wrong clock's would
/// have all others removed.
public struct PruneBackups: Sendable {
    public struct Plan: Sendable {
        public let kept: [BackupInventory.Item]
        /// Manifests go before their objects: in between, the backup is incomplete and not a manifest without an object.
        public let removed: [BackupInventory.Item]
    }

    /// How old something unfinished must be to count as abandoned.
    static let abandonedAfter: Int64 = 2 * 86400

    private let store: any WritableStore

    public init(store: any WritableStore) { self.store = store }

    /// Pure.
    public static func plan(_ items: [BackupInventory.Item], policy: RetentionPolicy, now: Int64) -> Plan {
        var kept: [BackupInventory.Item] = []
        var removed: [BackupInventory.Item] = []
        var groups: [[String]: [BackupInventory.Item]] = [:]
        for item in items {
            switch item.state {
            case .archive, .damaged: kept.append(item)
            case .complete where BackupInventory.isAhead(item.time ?? now, of: now): kept.append(item)
            case .complete: groups[item.group, default: []].append(item)
            case .incomplete, .leftover:
                // By the store's clock, where it tells: the name's stamp is when the backup began.
                let age = now - (item.object.modified ?? item.time ?? now)
                if age > abandonedAfter { removed.append(item) } else { kept.append(item) }
            }
        }
        for group in groups.values {
            let ordered = group.newestFirst
            let stays = policy.kept(ordered.map { $0.time ?? 0 })
            for (item, stays) in zip(ordered, stays) {
                if stays { kept.append(item) } else { removed.append(item) }
            }
        }
        return Plan(kept: kept.newestFirst, removed: removed.newestFirst)
    }

    /// Throws what the store throws; what was removed by then is removed.
    public func remove(_ plan: Plan, stop: StopFlag) throws {
        for item in plan.removed.reversed() {
            try stop.check()
            if item.state == .complete { try store.remove(key: BackupKey.manifest(of: item.object.key), stop: stop) }
            try store.remove(key: item.object.key, stop: stop)
        }
    }
}
