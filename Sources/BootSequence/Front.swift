internal import CloudPlatform
internal import ConfigTemplates
internal import HostSystem

/// Opens stores with this instance's region and credentials.
struct StoreAccess {
    let layout: HostLayout
    let environment: [String: String]
    let identity: InstanceIdentity
    let service: EC2Metadata?
    let transport: any HTTPTransport
    let log: Log

    /// For a command outside of any front. Only a bucket may need to know who this instance is, for its role and its region, and
    /// not even that where the environment or a credentials file has keys: a laptop has no metadata service to wait for.
    static func standalone(
        _ location: StoreLocation, _ settings: BackupSettings, options: RunOptions, transport: any HTTPTransport,
        log: Log, stop: StopFlag
    ) throws -> StoreAccess {
        let environment = options.sources.environment
        let keys = CredentialChain(environment: environment, platform: nil, role: nil, log: log)
        if location.scheme == .s3, !settings.isAnonymous, try keys.credentials(stop: stop) == nil {
            return try Front.identify(options, transport: transport, log: log, stop: stop).access
        }
        return StoreAccess(
            layout: options.layout, environment: environment,
            identity: InstanceIdentity(platform: .none, id: ""), service: nil, transport: transport, log: log)
    }

    func store(_ location: StoreLocation, _ settings: BackupSettings?) throws -> any ObjectStore {
        try Stores.make(
            location, options: storeOptions(settings), credentials: credentials, transport: transport, log: log)
    }

    func writableStore(_ location: StoreLocation, _ settings: BackupSettings) throws -> any WritableStore {
        try Stores.makeWritable(
            location, options: storeOptions(settings), credentials: credentials, transport: transport, log: log)
    }

    private func storeOptions(_ settings: BackupSettings?) -> StoreOptions {
        var options = StoreOptions(environment: environment)
        options.region =
            settings?.region ?? environment["AWS_REGION"] ?? environment["AWS_DEFAULT_REGION"] ?? identity.region
        options.endpoint = settings?.endpoint
        options.isAnonymous = settings?.isAnonymous ?? false
        if let settings {
            options.connections = settings.connections
            options.memory = settings.memory
        }
        return options
    }

    private var credentials: CredentialChain {
        CredentialChain(
            environment: environment, platform: identity.platform,
            role: service.map { RoleCredentials(metadata: $0, log: log) }, log: log)
    }

    /// A small text that the settings `include:`.
    func fetch(_ address: String, stop: StopFlag) throws -> [UInt8] {
        let location = try StoreLocation(parsing: address)
        guard let bytes = try store(location, nil).read(key: location.key, limit: SettingsText.sizeLimit, stop: stop)
        else {
            throw RestoreBackup.NotThere(location: location.description)
        }
        return bytes
    }
}

/// A front as the settings describe it: everything that the steps after `settle` work with.
struct Front {
    let layout: HostLayout
    let settings: Settings
    let layers: [String]
    let identity: InstanceIdentity
    let version: String
    let store: ReleaseStore
    let services: ServiceControl
    let proof: ProveRelease?
    let announcers: [any Announcer]
    /// Of the release's files; nil leaves them with whoever runs amorce.
    let owner: (owner: UInt32, group: UInt32)?
    let sharedOwner: (owner: UInt32, group: UInt32)?
    private let access: StoreAccess
    private let places: [(location: StoreLocation, settings: BackupSettings)]

    /// Who this instance is, and the stores as it may open them.
    static func identify(
        _ options: RunOptions, transport: any HTTPTransport, log: Log, stop: StopFlag
    ) throws -> (data: InstanceData, access: StoreAccess) {
        let environment = options.sources.environment
        let order = SettleSettings(layout: options.layout) { _ in [] }.metadataSources(options.sources)
        let (data, service) = try IdentifyInstance(
            layout: options.layout, environment: environment, recorded: options.metadataFile, transport: transport,
            log: log
        ).identify(order, stop: stop)
        let access = StoreAccess(
            layout: options.layout, environment: environment, identity: data.identity, service: service,
            transport: transport, log: log)
        return (data, access)
    }

    static func mergedSettings(
        _ instance: InstanceData, options: RunOptions, access: StoreAccess, stop: StopFlag
    ) throws -> SettledSettings {
        var sources = options.sources
        if let raw = instance.userData { sources.userData = try UserData.settings(in: raw) }
        return try SettleSettings(layout: options.layout) { try access.fetch($0, stop: stop) }.settle(sources)
    }

    /// Settings and everything that follows from them; throws `SettingsProblems` with all that is wrong.
    static func settle(
        _ instance: InstanceData, options: RunOptions, access: StoreAccess, transport: any HTTPTransport, log: Log,
        stop: StopFlag
    ) throws -> Front {
        let settled = try mergedSettings(instance, options: options, access: access, stop: stop)
        return try Front(settled, instance, options: options, access: access, transport: transport, log: log)
    }

    private init(
        _ settled: SettledSettings, _ instance: InstanceData, options: RunOptions, access: StoreAccess,
        transport: any HTTPTransport, log: Log
    ) throws {
        let settings = settled.settings
        let problems = ProblemList()
        func origin(_ path: String) -> SettingsOrigin {
            path.split(separator: ".").reduce(settled.tree as SettingsTree?) { $0?[String($1)] }?.origin
                ?? SettingsOrigin("defaults")
        }
        func account(_ text: String?, _ key: String) -> (owner: UInt32, group: UInt32)? {
            guard let text else { return nil }
            guard let found = Accounts.resolve(text, layout: options.layout) else {
                problems.add(origin(key), "`\(key)`: there is no user or group \(Printable.text(text, limit: 80))")
                return nil
            }
            return found
        }
        layout = options.layout
        self.settings = settings
        layers = settled.layers
        identity = instance.identity
        version = options.version
        self.access = access
        owner = account(settings.owner, "owner") ?? (Host.isSuperuser ? (0, 0) : nil)
        sharedOwner = account(settings.sharedOwner, "shared-owner")
        store = ReleaseStore(layout: options.layout, app: settings.app)
        services = ServiceControl(settings.services, log: log)
        proof = settings.probe.map { ProveRelease($0, transport: transport) }
        announcers = settings.announce.map { _ in HealthFileAnnouncer(layout: options.layout) }
        var places: [(location: StoreLocation, settings: BackupSettings)] = []
        for place in settings.backup.map({ [$0] + $0.others }) ?? [] {
            do {
                places.append((try StoreLocation(parsing: place.from), place))
            } catch {
                problems.add(origin("backup.from"), "`backup.from`: \(error)")
            }
        }
        self.places = places
        if settings.probe == nil {
            problems.add(origin("probe"), "`probe.url` is missing: without it nothing proves what is served")
        }
        if let served = try ReleaseStore.liveApp(layout: options.layout), served != settings.app {
            problems.add(
                origin("app"),
                "`app` is \(settings.app), and this front serves \(served): a front serves one application; for another one, "
                    + "launch another front")
        }
        if !problems.problems.isEmpty { throw SettingsProblems(problems: problems.problems) }
    }

    var backupLocation: String {
        places.isEmpty ? "no backup" : places.map { "\($0.location)" }.joined(separator: ", else ")
    }

    func backupPlaces(log: Log) throws -> BackupPlaces {
        if places.isEmpty { throw RestoreBackup.NotThere(location: "`backup.from`") }
        return BackupPlaces(
            places: places.map { place in
                (
                    place.location,
                    {
                        RestoreBackup(
                            settings: place.settings, location: place.location,
                            store: try access.store(place.location, place.settings), owner: owner, app: settings.app,
                            log: log)
                    }
                )
            }, log: log)
    }

    func syncDelta(_ delta: DeltaSettings, log: Log) -> SyncDelta {
        SyncDelta(delta, app: settings.app, layout: layout, log: log)
    }

    /// Paths of the release that the delta must leave alone: what is shared, and what amorce renders.
    var protectedPaths: [String] {
        let rendered = (try? TemplateTree(layout: layout).items(sets: settings.templates)) ?? []
        return settings.shared
            + rendered.filter { $0.target.hasPrefix(TemplateTree.releaseFolder) }
            .map { String($0.target.dropFirst(TemplateTree.releaseFolder.count)) }
    }

    func render(_ record: ReleaseRecord, log: Log) throws -> [RenderedFile] {
        try RenderConfiguration(layout: layout, settings: settings, identity: identity, version: version, log: log)
            .render(for: .init(identifier: record.identifier, token: record.token))
    }

    /// Whether host and release have exactly these files.
    func isInPlace(_ files: [RenderedFile], of record: ReleaseRecord) throws -> Bool {
        let change = ConfigurationSwitch(store: store)
        let entries = record.configuration + record.rendered
        guard Set(files.map(\.entry.path)) == Set(entries.map(\.path)) else { return false }
        return try files.allSatisfy { try change.isInPlace($0.entry) }
    }

    /// Writes the rendered files of the release into its directory, each in the place of what the backup had there.
    func place(_ files: [RenderedFile], in directory: String, replacing record: ReleaseRecord) throws {
        try removeStale(record, keeping: files, in: directory)
        for file in files {
            guard case .release(let path) = file.place else { continue }
            let place = directory + "/" + path
            try Files.makeDirectoriesBeneath(directory, Files.parent(of: path) ?? "")
            // A cloned file shares its bytes with the release before: a new one takes its name.
            try file.entry.prepare(file.bytes, at: place + ".amorce-new")
            try Files.rename(place + ".amorce-new", to: place)
        }
    }

    /// What the release before had rendered and this one does not is not inherited. Where the source has a file of that name, it
    /// is there by now, and is not the rendered one.
    private func removeStale(_ record: ReleaseRecord, keeping files: [RenderedFile], in directory: String) throws {
        let kept = Set(files.map(\.place))
        for entry in record.rendered {
            // /var/www/APP/releases/ID/path
            let inside = entry.path.split(separator: "/").dropFirst(5).joined(separator: "/")
            if inside.isEmpty || kept.contains(.release(inside)) { continue }
            let place = directory + "/" + inside
            let isTheSame =
                entry.kind == .symlink
                ? Files.linkTarget(place) == entry.target
                : try FileReading.bytesIfPresent(place, limit: 64 << 20).map { Digest.sha256($0).hex } == entry.digest
            if isTheSame { try Files.remove(place) }
        }
    }

    /// Nil where there is nothing to ask, or a service that cannot be served aside.
    func rehearsal(of record: ReleaseRecord) -> Rehearsal.Request? {
        guard let probe = settings.probe, probe.releasePath != nil,
            let programs = Rehearsal.programs(of: settings.services)
        else { return nil }
        return Rehearsal.Request(release: record, probe: probe, programs: programs)
    }

    func proofSummary(_ record: ReleaseRecord) -> String {
        guard let probe = settings.probe else { return "no probe in the settings; the services have loaded it" }
        return "\(HTTPRequest.withoutQuery(probe.url)) is served by release \(record.identifier)"
    }
}
