// The routes of the API about secret files: whom they are sealed for, and which a machine has. Never what is in them.

import type { ApiRoute } from './api-route.ts'

export const SECRET_ROUTES: readonly ApiRoute[] = [
  {
    method: 'get',
    path: '/secrets/recipient',
    answer: (_call, { secretsKey }) => ({ recipient: secretsKey.recipient() }),
  },
  {
    method: 'get',
    path: '/machines/:mac/secrets',
    needs: 'admin',
    answer: (call, { secretFiles }) => secretFiles.explain(call.mac()),
  },
]
